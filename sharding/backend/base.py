"""Django's PostgreSQL backend, with two things that many databases need.

An error about a lost or refused connection names its database; and a server that is down fails its
callers at once, where the pool would let each of them wait for its whole timeout.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from types import TracebackType
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.db import OperationalError
from django.db.backends.base.base import NO_DB_ALIAS
from django.db.backends.postgresql import base, operations
from django.db.utils import DatabaseErrorWrapper
from django.utils.functional import cached_property
from psycopg import Error as PsycopgError
from psycopg import pq
from psycopg.conninfo import make_conninfo
from psycopg_pool import ConnectionPool, PoolTimeout

from sharding import conf, scope
from sharding.errors import DatabaseUnavailable

__all__ = ["DatabaseWrapper"]

_PING_PARAMETERS = ("host", "hostaddr", "port", "service", "sslmode")
_PING_TIMEOUT = 2  # seconds, the smallest that libpq knows
_PING_AFTER = 1.0  # seconds without a sign of life

# admin_shutdown, crash_shutdown, cannot_connect_now, too_many_connections
_UNREACHABLE = {"57P01", "57P02", "57P03", "53300"}


class NamingErrorWrapper(DatabaseErrorWrapper):
    """Turns errors that mean "no connection" into DatabaseUnavailable."""

    wrapper: "DatabaseWrapper"

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc_type is None or exc_value is None:
            return
        try:
            super().__exit__(exc_type, exc_value, traceback)
        except OperationalError as error:
            if not _means_unreachable(exc_value):
                raise
            self.wrapper.doubt()
            raise unavailable(self.wrapper.alias, reason=str(error)) from exc_value


class DatabaseOperations(operations.DatabaseOperations):
    """Django's, with this backend's compilers."""

    compiler_module = "sharding.backend.compiler"


class TimedCursor(base.CursorDebugWrapper):
    """With DEBUG on, tells the request how long each statement took."""

    @contextmanager
    def debug_sql(self, *args: Any, **kwargs: Any) -> Iterator[None]:
        with scope.timed(self.db.alias), super().debug_sql(*args, **kwargs):
            yield


class DatabaseWrapper(base.DatabaseWrapper):
    """One connection to one database of the project."""

    ops_class = DatabaseOperations
    _connection_pools: "dict[str, ConnectionPool[Any]]"
    _sign_of_life: dict[str, float] = {}

    @cached_property
    def wrap_database_errors(self) -> NamingErrorWrapper:
        return NamingErrorWrapper(self)

    def cursor(self) -> Any:
        scope.check(self.alias)
        return super().cursor()

    def chunked_cursor(self) -> Any:
        scope.check(self.alias)
        return super().chunked_cursor()

    def make_debug_cursor(self, cursor: Any) -> TimedCursor:
        return TimedCursor(cursor, self)

    @property
    def pool(self) -> "ConnectionPool[Any] | None":
        """The process's pool for this alias, made when first asked for; None without one."""
        options = self.settings_dict["OPTIONS"].get("pool")
        if self.alias == NO_DB_ALIAS or not options:
            return None
        if pool := self._connection_pools.get(self.alias):
            return pool
        if self.settings_dict.get("CONN_MAX_AGE", 0) != 0:
            raise ImproperlyConfigured("Pooling doesn't support persistent connections.")
        pool = ConnectionPool(
            kwargs={**self.get_connection_params(), "autocommit": True},
            open=False,
            configure=self._configure_connection,
            # The pool would repeat failed attempts with pauses that grow to minutes, and meanwhile
            # make no others: nobody would notice that the server is back.
            **{"reconnect_timeout": 0, **({} if options is True else options)},
        )
        # Of several threads that come here at once the first wins; no pool is open yet.
        return self._connection_pools.setdefault(self.alias, pool)

    def close_pool(self) -> None:
        if pool := self._connection_pools.pop(self.alias, None):
            pool.close()
        self.doubt()

    def doubt(self) -> None:
        """Ask the server for an answer before the next wait for a connection."""
        self._sign_of_life.pop(self.alias, None)

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        if (pool := self.pool) is None:
            return super().get_new_connection(conn_params)
        if not pool.get_stats().get("pool_available"):
            self._require_answer(conn_params)
        connection = self._from_pool(conn_params)
        if self.settings_dict["CONN_HEALTH_CHECKS"] and not _is_alive(connection):
            # At the end of its server they all died. The pool's own check would try one after the
            # other, with growing pauses.
            connection._pool.putconn(connection)
            pool.drain()
            self.doubt()
            self._require_answer(conn_params)
            connection = self._from_pool(conn_params)
        self._sign_of_life[self.alias] = monotonic()
        return connection

    def _from_pool(self, conn_params: dict[str, Any]) -> Any:
        try:
            return super().get_new_connection(conn_params)
        except PoolTimeout:
            raise unavailable(self.alias, reason=self._ask_why(conn_params)) from None

    def _ask_why(self, conn_params: dict[str, Any]) -> str:
        """Return why the pool gave no connection in time, which it does not tell itself."""
        try:
            self.Database.connect(**conn_params).close()
        except self.Database.Error as error:
            return str(error)
        largest = self.pool.max_size if self.pool else 0
        return f"all {largest} connections that this process may open are in use"

    def _require_answer(self, conn_params: dict[str, Any]) -> None:
        """Raise DatabaseUnavailable when the server does not answer; ask once a second at most."""
        if monotonic() - self._sign_of_life.get(self.alias, -_PING_AFTER) < _PING_AFTER:
            return
        given = {key: conn_params[key] for key in _PING_PARAMETERS if key in conn_params}
        conninfo = make_conninfo("", **given, connect_timeout=_PING_TIMEOUT)
        answer = pq.PGconn.ping(conninfo.encode())
        if answer == pq.Ping.NO_RESPONSE:
            raise unavailable(self.alias, reason="its server does not answer")
        if answer == pq.Ping.REJECT:
            raise unavailable(self.alias, reason="its server is starting up or shutting down")
        self._sign_of_life[self.alias] = monotonic()


def _is_alive(connection: Any) -> bool:
    try:
        ConnectionPool.check_connection(connection)
    except PsycopgError:
        return False
    return True


def unavailable(alias: str, *, reason: str) -> DatabaseUnavailable:
    """Return the error that says which database is missing, and why."""
    first_line = reason.strip().partition("\n")[0].rstrip(".")
    return DatabaseUnavailable(
        f"Database {conf.label(alias)} cannot be reached: {first_line}. Only what lives "
        f"there is affected; check its server, then try again.",
        alias=alias,
    )


def _means_unreachable(error: BaseException) -> bool:
    # Errors without a code come from libpq or the pool, not from a server that answers.
    code = getattr(error, "sqlstate", None)
    return code is None or code in _UNREACHABLE or code.startswith("08")
