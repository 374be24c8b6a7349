"""A statement to each of several databases at once, on the caller's own connections.

Right inside atomic() and inside tests: uncommitted rows are seen, and nothing is left open. One
thread sends to every server and then waits for all sockets together: threads would cost more than
they gain on quick queries.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from selectors import EVENT_READ, EVENT_WRITE
from time import perf_counter
from typing import Any

from django.db import connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.utils import Error as DjangoError
from psycopg import ClientCursor, Connection, pq
from psycopg.adapt import Transformer
from psycopg.errors import error_from_result

from sharding import observing
from sharding.backend.probing import Selector
from sharding.errors import DatabaseUnavailable

__all__ = ["Statement", "marked_for_rollback", "named", "scatter"]

Row = tuple[Any, ...]
Rows = Sequence[Row]
Statement = tuple[str, Sequence[Any] | None]  # SQL and its parameters; None: it has no placeholders

_CANCEL_TIMEOUT = 3.0  # seconds
_CANCEL_PAUSE = 0.1  # seconds
_CANCEL_ATTEMPTS = 30
_FIRST_LOADED = 4  # rows


def scatter(
    asked: Mapping[str, Statement], *, partial: bool = False
) -> tuple[dict[str, Rows], frozenset[str]]:
    """Run alias -> statement; return alias -> rows, and the aliases that are missing.

    The first database that fails raises its error, naming it, after all others have answered;
    inside atomic() each one that was asked is then marked for rollback. With `partial`, a database
    that cannot be reached is reported as missing instead.
    """
    missing: set[str] = set()
    with marked_for_rollback(asked):
        run = _together if all(_is_plain(connections[alias]) for alias in asked) else _in_turn
        rows = run(asked, missing, partial=partial)
    return rows, frozenset(missing)


@contextmanager
def marked_for_rollback(aliases: Iterable[str]) -> Iterator[None]:
    """Have the transactions that are open on these databases rolled back when the block fails."""
    try:
        yield
    except GeneratorExit:
        raise  # no failure: the caller has seen enough
    except BaseException:
        for alias in aliases:
            if connections[alias].in_atomic_block:
                transaction.set_rollback(True, using=alias)
        raise


@contextmanager
def named(alias: str) -> Iterator[None]:
    """Let an error of the block say which database it comes from, and be the same otherwise.

    Its text then begins with the alias, which is its attribute `alias` too.

    A statement that Ctrl-C interrupted is cancelled: its connection would stay busy.
    """
    try:
        yield
    except DatabaseUnavailable:
        raise  # says so already
    except DjangoError as error:
        text, *rest = error.args or ("",)
        error.args = (f"{alias}: {text}", *rest)
        error.alias = alias
        raise
    except BaseException:
        if connection := connections[alias].connection:
            _cancel(connection)
        raise


def _cancel(connection: "Connection[Any]") -> None:
    """Leave the connection ready for the next statement, whatever it is doing; or close it."""
    active = connection.pgconn.transaction_status == pq.TransactionStatus.ACTIVE
    try:
        for _ in range(_CANCEL_ATTEMPTS if active else 0):
            # More than once: one that comes before the server has begun is lost.
            connection.cancel_safe(timeout=_CANCEL_TIMEOUT)
            if _has_ended(connection.pgconn):
                return
    except BaseException:
        connection.close()
        raise
    if active:
        connection.close()


def _has_ended(pgconn: "pq.abc.PGconn") -> bool:
    """Wait a moment for the rest of an answer, drop it, and say whether it was all."""
    pgconn.flush()
    with Selector() as selector:
        selector.register(pgconn.socket, EVENT_READ)
        selector.select(_CANCEL_PAUSE)
    pgconn.consume_input()
    while not pgconn.is_busy():
        if pgconn.get_result() is None:
            return True
    return False


def _is_plain(connection: BaseDatabaseWrapper) -> bool:
    """Say whether nobody watches the connection's statements, which only Django's cursor shows."""
    options = connection.settings_dict["OPTIONS"]
    return not (
        connection.execute_wrappers
        or connection.queries_logged
        or options.get("server_side_binding")
    )


def _in_turn(
    asked: Mapping[str, Statement], missing: set[str], *, partial: bool
) -> dict[str, Rows]:
    answers: dict[str, Rows] = {}
    for alias, statement in asked.items():
        connection = connections[alias]
        with _absent_if(partial, alias, missing), named(alias), connection.cursor() as cursor:
            with observing.fanning_out():
                cursor.execute(*statement)
            answers[alias] = cursor.fetchall()
    return answers


def _together(
    asked: Mapping[str, Statement], missing: set[str], *, partial: bool
) -> dict[str, Rows]:
    running: dict[str, _Running] = {}
    answers: dict[str, Rows] = {}
    try:
        for alias, statement in asked.items():
            with _absent_if(partial, alias, missing):
                # Kept before it is sent: Ctrl-C in between would leave the connection busy.
                running[alias] = _Running(connections[alias])
                running[alias].send(*statement)
        _wait([each for each in running.values() if not each.done])
        errors: list[BaseException] = []
        for alias, each in running.items():
            try:
                with _absent_if(partial, alias, missing), named(alias):
                    answers[alias] = each.rows()
            except DjangoError as error:
                errors.append(error)
        if errors:
            raise errors[0]
    finally:
        for each in running.values():
            each.close()
    return answers


@contextmanager
def _absent_if(partial: bool, alias: str, missing: set[str]) -> Iterator[None]:
    try:
        yield
    except DatabaseUnavailable:
        if not partial:
            raise
        missing.add(alias)


def _wait(running: Sequence["_Running"]) -> None:
    with Selector() as selector:
        for each in running:
            if wanted := each.advance(0):
                selector.register(each.pgconn.socket, wanted, each)
        while selector.get_map():
            for key, events in selector.select():
                wanted = key.data.advance(events)
                if not wanted:
                    selector.unregister(key.fileobj)
                elif wanted != key.events:
                    selector.modify(key.fileobj, wanted, key.data)


class _Running:
    """A statement on one connection: sent, and what came back so far. `done` is when it is over."""

    def __init__(self, wrapper: BaseDatabaseWrapper) -> None:
        self.done = True
        self.started = self.seconds = 0.0
        self.results: list[pq.abc.PGresult] = []
        self.failure: BaseException | None = None
        self.wrapper = wrapper
        self.cursor = wrapper.cursor()
        self.connection: Connection[Any] = wrapper.connection
        self.pgconn = self.connection.pgconn

    def send(self, sql: str, params: Sequence[Any] | None) -> None:
        """Begin to send it. What goes wrong is raised by rows(), when the others have answered."""
        try:
            self.wrapper.validate_no_broken_transaction()
            self._begin()
            query = self.cursor.cursor.mogrify(sql, params)
            self.done = False
            self.started = perf_counter()
            self.pgconn.send_query(query.encode())
        except Exception as error:
            self._fail(error)

    def advance(self, events: int) -> int:
        """Send and read what can be; return the events to wait for, 0 when the answer is whole."""
        try:
            return self._advance(events)
        except Exception as error:
            self._fail(error)
            return 0

    def _advance(self, events: int) -> int:
        if events & EVENT_READ:
            self.pgconn.consume_input()
        unsent = self.pgconn.flush()
        while not self.pgconn.is_busy():
            result = self.pgconn.get_result()
            if result is None:
                self.done = True
                self.seconds = perf_counter() - self.started
                return 0
            self.results.append(result)
        return EVENT_READ | EVENT_WRITE if unsent else EVENT_READ

    def rows(self) -> Rows:
        """Return the rows. Raises Django's error for what the server answered instead."""
        observing.note(self.wrapper.alias, self.seconds, kind=observing.FAN_OUT)
        with self.wrapper.wrap_database_errors:
            if self.failure:
                raise self.failure
            result = self.results[-1]
            if result.status != pq.ExecStatus.TUPLES_OK:
                raise error_from_result(result, encoding="utf-8")
            return _LoadedRows(self.wrapper, self.cursor.cursor, result)

    def close(self) -> None:
        """Leave the connection ready for the next statement, whatever happened."""
        if not self.done:
            _cancel(self.connection)
        self.cursor.close()

    def _fail(self, error: Exception) -> None:
        self.failure, self.done = error, True

    def _begin(self) -> None:
        """Open the transaction, which psycopg does before its first statement."""
        idle = self.pgconn.transaction_status == pq.TransactionStatus.IDLE
        if idle and not self.connection.autocommit:
            self.cursor.cursor.execute("")


class _LoadedRows(Sequence[Row]):
    """The rows of an answer, turned into Python's values as they are asked for.

    A merge that wants the first 20 of all shards asks each of them for a third of what it sent.
    """

    def __init__(
        self, wrapper: BaseDatabaseWrapper, cursor: ClientCursor[Any], result: pq.abc.PGresult
    ) -> None:
        self._wrapper = wrapper
        self._transformer = Transformer(cursor)
        self._transformer.set_pgresult(result)
        self._length = result.ntuples

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            start, stop, step = index.indices(self._length)
            return self._load(start, stop)[::step]
        return self._load(index, index + 1)[0]

    def __iter__(self) -> Iterator[Row]:
        start, size = 0, _FIRST_LOADED
        while start < self._length:
            yield from self._load(start, min(start + size, self._length))
            start, size = start + size, max(1, start // 4)

    def _load(self, start: int, stop: int) -> list[Row]:
        try:
            return self._transformer.load_rows(start, stop, tuple)
        except BaseException:
            with named(self._wrapper.alias), self._wrapper.wrap_database_errors:
                raise
