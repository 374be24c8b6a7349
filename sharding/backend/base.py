"""Django's PostgreSQL backend, with two things that many databases need.

An error about a lost or refused connection names its database; and a server that is down fails its
callers at once, where the pool would let each of them wait for its whole timeout.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from types import TracebackType
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, OperationalError, connections
from django.db.backends.base.base import NO_DB_ALIAS
from django.db.backends.postgresql import base, operations
from django.db.utils import DatabaseErrorWrapper
from django.utils.functional import cached_property
from psycopg_pool import ConnectionPool, PoolTimeout

from sharding import conf, observing, scope, unsure
from sharding.backend import probing
from sharding.backend.creation import DatabaseCreation
from sharding.errors import DatabaseUnavailable, SlotMoved

__all__ = ["DatabaseWrapper", "unavailable"]

_PROBE_AFTER = 1.0  # seconds without a sign of life
_TRUSTED = 0.1  # seconds after a sign of life
_SILENCE = 0.5  # seconds from which a missing answer is worth remembering
_ASK_SILENT_AFTER = 2.0  # seconds

# admin_shutdown, crash_shutdown, cannot_connect_now, too_many_connections
_UNREACHABLE = {"57P01", "57P02", "57P03", "53300"}

# Who an installation is and who owns which slot is no data: it survives `flush` and tests.
_KEPT_BY_FLUSH = {
    f"sharding_{name}" for name in ("cluster", "identity", "move", "shard", "slot", "slotowner")
}


class NamingErrorWrapper(DatabaseErrorWrapper):
    """Turns errors that mean "no connection" into DatabaseUnavailable, and the guard's refusal into
    SlotMoved."""

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
        except DatabaseError:
            if getattr(exc_value, "sqlstate", None) != SlotMoved.sqlstate:
                raise
            raise _slot_moved(self.wrapper.alias, exc_value) from exc_value


class DatabaseOperations(operations.DatabaseOperations):
    """Django's, with this backend's compilers."""

    compiler_module = "sharding.backend.compiler"

    def sql_flush(
        self, style: Any, tables: Any, *, reset_sequences: bool = False, allow_cascade: bool = False
    ) -> list[str]:
        emptied = [table for table in tables if table not in _KEPT_BY_FLUSH]
        return super().sql_flush(
            style, emptied, reset_sequences=reset_sequences, allow_cascade=allow_cascade
        )


class ObservedDebugCursor(base.CursorDebugWrapper):
    """The cursor that Django uses with DEBUG on, whose statements are noted too."""

    @contextmanager
    def debug_sql(self, *args: Any, **kwargs: Any) -> Iterator[None]:
        start = monotonic()
        try:
            with super().debug_sql(*args, **kwargs):
                yield
        finally:
            observing.note(self.db.alias, monotonic() - start)


class DatabaseWrapper(base.DatabaseWrapper):
    """One connection to one database of the project."""

    ops_class = DatabaseOperations
    creation_class = DatabaseCreation
    _connection_pools: "dict[str, ConnectionPool[Any]]"
    _sign_of_life: dict[str, float] = {}
    _silent: dict[str, float] = {}

    @cached_property
    def wrap_database_errors(self) -> NamingErrorWrapper:
        return NamingErrorWrapper(self)

    def cursor(self) -> Any:
        self._check()
        return super().cursor()

    def chunked_cursor(self) -> Any:
        self._check()
        return super().chunked_cursor()

    def _check(self) -> None:
        scope.check(self.alias)
        if self.alias in unsure.aliases() and not self.in_atomic_block:
            raise unavailable(self.alias, reason="it did not say which slots it owns by now")

    def make_debug_cursor(self, cursor: Any) -> ObservedDebugCursor:
        return ObservedDebugCursor(cursor, self)

    def make_cursor(self, cursor: Any) -> observing.ObservedCursor:
        return observing.ObservedCursor(cursor, self)

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
            # One thread is enough to open connections; hundreds of shards have hundreds of pools.
            **{"reconnect_timeout": 0, "num_workers": 1, **({} if options is True else options)},
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
        connection = self._new_connection(conn_params)
        # Not at the top: the check needs the slot map, whose modules import this backend.
        from sharding import identity

        try:
            identity.require(self.alias, connection)
        except BaseException:
            self.connection = connection
            self._close()
            self.connection = None
            raise
        return connection

    def _new_connection(self, conn_params: dict[str, Any]) -> Any:
        if (pool := self.pool) is None:
            return super().get_new_connection(conn_params)
        if not pool.get_stats().get("pool_available"):
            self._require_answer(conn_params)
        connection = self._from_pool(conn_params)
        if self._is_trusted() and probing.is_quiet(connection):
            observing.note_pool(self.alias, pool)
            return connection
        if self.settings_dict["CONN_HEALTH_CHECKS"] and not probing.is_alive(connection):
            # At the end of its server they all died. The pool's own check would try one after the
            # other, with growing pauses.
            connection._pool.putconn(connection)
            pool.drain()
            self.doubt()
            self._require_answer(conn_params)
            connection = self._from_pool(conn_params)
        self._sign_of_life[self.alias] = monotonic()
        observing.note_pool(self.alias, pool)
        return connection

    def _is_trusted(self) -> bool:
        """Say whether the server answered just now: under load not each request need ask it."""
        last = self._sign_of_life.get(self.alias)
        return last is not None and monotonic() - last < _TRUSTED

    def _close(self) -> None:
        super()._close()
        if pool := self._connection_pools.get(self.alias):
            observing.note_pool(self.alias, pool)

    def _from_pool(self, conn_params: dict[str, Any]) -> Any:
        try:
            return super().get_new_connection(conn_params)
        except PoolTimeout:
            # The pool does not tell itself why it gave none in time.
            if refusal := probing.refusal(self.Database.connect, conn_params):
                self.doubt()
                raise unavailable(self.alias, reason=probing.why(refusal)) from None
            largest = self.pool.max_size if self.pool else 0
            reason = f"all {largest} connections that this process may open are in use"
            raise unavailable(self.alias, reason=reason) from None

    def _require_answer(self, conn_params: dict[str, Any]) -> None:
        """Raise DatabaseUnavailable when the server lets nobody in; ask once a second at most.

        While one that swallows what it is sent is asked again, all others take it for gone: were
        each of them to wait, a dead machine would in time hold every thread of this process.
        """
        last = self._sign_of_life.get(self.alias)
        if last is not None and monotonic() - last < _PROBE_AFTER:
            return
        if silent := self._silent.get(self.alias):
            if monotonic() - silent < _ASK_SILENT_AFTER:
                raise unavailable(self.alias, reason=probing.NO_ANSWER)
            self._silent[self.alias] = monotonic()
        started = monotonic()
        refusal = probing.refusal(self.Database.connect, conn_params)
        self._silent.pop(self.alias, None)
        if refusal and monotonic() - started > _SILENCE:
            self._silent[self.alias] = monotonic()
        # A server that we know may have no place for one more: then the pool waits for its own.
        if refusal and (last is None or not probing.is_answer(refusal)):
            raise unavailable(self.alias, reason=probing.why(refusal)) from None
        self._sign_of_life[self.alias] = monotonic()


def unavailable(alias: str, *, reason: str) -> DatabaseUnavailable:
    """Return the error that says which database is missing, and why."""
    first_line = reason.strip().partition("\n")[0].rstrip(".")
    return DatabaseUnavailable(
        f"Database {conf.label(alias)} cannot be reached: {first_line}. Only what lives "
        f"there is affected; check its server, then try again.",
        alias=alias,
    )


def _slot_moved(alias: str, error: Any) -> SlotMoved:
    detail = error.diag.message_detail or ""
    return SlotMoved(
        f"{alias}: {error.diag.message_primary}. If a move is under way, it will be over soon: run "
        f"the transaction again, as sharding.atomic(user_id).run(function) does by itself. Where "
        f"the write names its shard, let the router choose it.",
        alias=alias,
        slot=int(detail) if detail.isdecimal() else None,
    )


def _means_unreachable(error: BaseException) -> bool:
    # Errors without a code come from libpq or the pool, not from a server that answers.
    code = getattr(error, "sqlstate", None)
    return code is None or code in _UNREACHABLE or code.startswith("08")


_inherited: list[object] = []


def _leave_to_parent() -> None:
    """After a fork, let the child open connections of its own.

    Both would write to one socket. Nothing is closed, which would say goodbye to the server in
    the parent's name; and nothing is freed, because a pool ends with its threads, which the child
    does not have.
    """
    for pool in DatabaseWrapper._connection_pools.values():
        pool._closed = True
        _inherited.append(pool)
    for state in (DatabaseWrapper._connection_pools, DatabaseWrapper._sign_of_life):
        state.clear()
    for wrapper in connections.all(initialized_only=True):
        _inherited.append(wrapper.connection)
        wrapper.connection = None


os.register_at_fork(after_in_child=_leave_to_parent)
