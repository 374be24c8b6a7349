"""From planned to verified's doorstep: PostgreSQL's logical replication fills the target.

A publication on the source filters the rows by their slots, a subscription on the target copies
them and then follows every change. We only drive it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic

from django.db import OperationalError, connections, transaction
from django.db.backends.utils import CursorWrapper
from psycopg.errors import QueryCanceled
from psycopg.sql import SQL, Identifier, Literal

from sharding import ownership
from sharding.errors import MoveFailed, MoveOvertaken
from sharding.models.moves import Move
from sharding.models.owned import SlotOwner
from sharding.moves import record
from sharding.moves.servers import (
    execute,
    one_lifetime,
    replication_address,
    rows,
    value,
    wait_for,
)
from sharding.slot_sql import in_slots
from sharding.tables import tables

__all__ = ["Progress", "Report", "announce", "catch_up", "copy", "drained"]

State = SlotOwner.State

_NO_LAG = 0.2  # seconds in which the target must follow before writers are asked to wait
_COPY_PAUSE = 0.02  # seconds
_LOOK_EVERY = 0.2  # seconds; to see how far it is costs the copy itself time
_COPY_TIMEOUT = 7 * 24 * 3600.0
_CATCH_UP_TIMEOUT = 24 * 3600.0
_ERRORS = 10
_CREATE_SLOT_TIMEOUT = 60  # seconds; it waits for every transaction that writes


@dataclass(frozen=True)
class Progress:
    """Where a move is: in words, and perhaps rows of how many."""

    text: str
    done: int = 0
    total: int = 0


Report = Callable[[Progress], None]


def announce(move: Move) -> None:
    """Let both sides know of the move, prepare the source, and wait until every map knows too."""
    with ownership.changing(move.target) as cursor:
        allowed = [("", None), (State.IMPORTING, move.pk)]
        ownership.require(cursor, move.slots, allowed)
        ownership.set_state(cursor, move.slots, State.IMPORTING, move=move.pk)
    with ownership.changing(move.source) as cursor:
        ownership.require(cursor, move.slots, [(State.OWNED, None), (State.OWNED, move.pk)])
        ownership.set_state(cursor, move.slots, State.OWNED, move=move.pk)
    known = monotonic()
    _prepare(move)
    one_lifetime(since=known)


def copy(move: Move, report: Report) -> None:
    """Copy the rows; over when every table follows the source. Raises MoveFailed."""
    name = record.name(move)
    _prepare(move)
    if not value(move.target, _HAS_SUBSCRIPTION, [name]):
        _create_subscription(move)
    total, errors, looked = _estimate(move), _Errors(move), 0.0

    def ready() -> bool:
        nonlocal looked
        states = {state for (state,) in rows(move.target, _TABLE_STATES, [name])}
        if monotonic() - looked > _LOOK_EVERY:
            looked = monotonic()
            errors.require_few()
            report(Progress("copying", min(_copied(move), total), total))
        return states == {"r"}

    wait_for(ready, "the rows to be copied", timeout=_COPY_TIMEOUT, pause=_COPY_PAUSE)
    # From here on, what a crash of the target takes from it is sent again.
    execute(
        move.target,
        SQL("ALTER SUBSCRIPTION {} SET (synchronous_commit = off)").format(Identifier(name)),
    )


def catch_up(move: Move, report: Report) -> None:
    """Wait until the target follows within a moment. Raises MoveFailed."""

    errors = _Errors(move)

    def close() -> bool:
        started = monotonic()
        lsn = _current_lsn(move)

        def here() -> bool:
            errors.require_few()
            return _has_applied(move, lsn)

        wait_for(here, "the target to follow", timeout=_CATCH_UP_TIMEOUT)
        report(Progress(f"catching up, {monotonic() - started:.2f} s behind"))
        return monotonic() - started < _NO_LAG

    wait_for(close, "the target to catch up", timeout=_CATCH_UP_TIMEOUT)


def drained(move: Move, *, timeout: float) -> None:
    """Wait until the target has, on disk, all that was committed on the source before.

    Raises MoveFailed when that takes longer than `timeout` seconds.
    """
    lsn = _current_lsn(move)
    wait_for(lambda: _has_applied(move, lsn), f"{move.target} to have all", timeout=timeout)
    # A commit that waits for the disk takes with it what the subscription's worker committed.
    _flush(move.target)


def _require_healthy(move: Move) -> None:
    """Raise MoveFailed when the replication has stopped for good."""
    name = record.name(move)
    lost = value(
        move.source,
        "SELECT invalidation_reason FROM pg_replication_slots WHERE slot_name = %s",
        [name],
    )
    if lost:
        raise MoveFailed(
            f"The replication slot of the move was given up by {move.source} ({lost}): the target "
            f"was too far behind for its max_slot_wal_keep_size. Abort the move, raise that "
            f"setting, and begin again."
        )


class _Errors:
    """Counts the subscription's errors from now on. A few are those of a server that restarts."""

    def __init__(self, move: Move) -> None:
        self.move = move
        self.before = self._count()

    def require_few(self) -> None:
        """Raise MoveFailed when the target cannot apply what the source sends."""
        _require_healthy(self.move)
        if self._count() - self.before > _ERRORS:
            raise MoveFailed(
                f"{self.move.target} fails again and again to apply what {self.move.source} sends; "
                f"its log says why. Abort the move, remove the cause, and begin again."
            )

    def _count(self) -> int:
        query = (
            "SELECT apply_error_count + sync_error_count FROM pg_stat_subscription_stats"
            " WHERE subname = %s"
        )
        return value(self.move.target, query, [record.name(self.move)]) or 0


_HAS_SLOT = (
    "SELECT true FROM pg_replication_slots WHERE slot_name = %s AND database = current_database()"
)
_HAS_SUBSCRIPTION = (
    "SELECT true FROM pg_subscription WHERE subname = %s AND subdbid ="
    " (SELECT oid FROM pg_database WHERE datname = current_database())"
)
_TABLE_STATES = (
    "SELECT srsubstate FROM pg_subscription_rel r JOIN pg_subscription s ON s.oid = r.srsubid"
    " WHERE s.subname = %s"
)


def _prepare(move: Move) -> None:
    """Make on the source what it lacks: nothing is copied by that yet."""
    name = record.name(move)
    if not value(move.source, "SELECT true FROM pg_publication WHERE pubname = %s", [name]):
        _create_publication(move)
    if not value(move.source, _HAS_SLOT, [name]):
        _create_slot(move)


def _create_publication(move: Move) -> None:
    parts = [
        SQL("{} WHERE ({})").format(table.sql, in_slots(table.slot, move.slots))
        for table in tables()
    ]
    # A TRUNCATE knows no filter and would empty the target.
    statement = SQL(
        "CREATE PUBLICATION {} FOR TABLE {} WITH (publish = 'insert, update, delete')"
    ).format(Identifier(record.name(move)), SQL(", ").join(parts))
    with _while_under_way(move, move.source, State.OWNED) as cursor:
        cursor.execute(statement)


def _create_slot(move: Move) -> None:
    try:
        with _while_under_way(move, move.source, State.OWNED) as cursor:
            cursor.execute(f"SET LOCAL statement_timeout = '{_CREATE_SLOT_TIMEOUT}s'")
            cursor.execute(
                "SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [record.name(move)]
            )
    except OperationalError as error:
        if not isinstance(error.__cause__, QueryCanceled):
            raise
        raise MoveFailed(
            f"Transactions that write on {move.source}, in any database of that server, did not "
            f"end in {_CREATE_SLOT_TIMEOUT} s (pg_stat_activity, pg_prepared_xacts). When they "
            f"have ended: `manage.py shards move --resume`."
        ) from error


def _create_subscription(move: Move) -> None:
    name = Identifier(record.name(move))
    # PostgreSQL drops a table's own slot on the source as soon as its copy is complete: if that is
    # not on the target's disk by then, and a crash takes it back, nothing can go on.
    statement = SQL(
        "CREATE SUBSCRIPTION {name} CONNECTION {address} PUBLICATION {name} WITH (create_slot ="
        " false, slot_name = {slot}, copy_data = true, binary = true, synchronous_commit = on)"
    ).format(
        name=name,
        address=Literal(replication_address(move.source)),
        slot=Literal(record.name(move)),
    )
    connection = connections[move.target]
    with (
        _while_under_way(move, move.target, State.IMPORTING),
        connection.wrap_database_errors,
    ):
        # Not through Django's cursor, which may log it: there is a password in it.
        connection.connection.execute(statement)


@contextmanager
def _while_under_way(move: Move, alias: str, state: str) -> Iterator[CursorWrapper]:
    """A transaction in which the shard holds on to its part in the move.

    A mover that wakes after the move's end finds that out here. Raises MoveOvertaken.
    """
    with transaction.atomic(using=alias, durable=True), connections[alias].cursor() as cursor:
        cursor.execute("LOCK TABLE sharding_slotowner IN SHARE MODE")
        ownership.require(cursor, move.slots, [(state, move.pk)])
        yield cursor


def _estimate(move: Move) -> int:
    """About how many rows move: the share of the slots in what the source owns."""
    owned = value(move.source, "SELECT count(*) FROM sharding_slotowner WHERE state = 'owned'")
    total = sum(
        value(
            move.source,
            "SELECT greatest(reltuples, 0)::bigint FROM pg_class WHERE oid = %s::regclass",
            [table.sql.as_string()],
        )
        for table in tables()
    )
    return round(total * len(move.slots) / max(owned, 1))


def _copied(move: Move) -> int:
    """How many rows were copied so far: of tables that are done, and of those in progress."""
    running = value(
        move.target,
        "SELECT coalesce(sum(tuples_processed), 0)::bigint FROM pg_stat_progress_copy"
        " WHERE datname = current_database() AND command = 'COPY FROM' AND type = 'CALLBACK'",
    )
    done = value(
        move.target,
        "SELECT coalesce(sum(greatest(pg_stat_get_live_tuples(r.srrelid), 0)), 0)::bigint FROM"
        " pg_subscription_rel r JOIN pg_subscription s ON s.oid = r.srsubid"
        " WHERE s.subname = %s AND srsubstate IN ('s', 'r')",
        [record.name(move)],
    )
    return running + done


def _current_lsn(move: Move) -> str:
    """Return a position after everything that is committed on the source, on its disk."""
    _flush(move.source)
    return value(move.source, "SELECT pg_current_wal_flush_lsn()::text")


def _flush(alias: str) -> None:
    """Commit something and wait for the disk, which then has all that was committed before."""
    with connections[alias].cursor() as cursor:
        cursor.execute("SET synchronous_commit = on")
        cursor.execute("SELECT pg_logical_emit_message(true, 'sharding', 'flush')")


def _has_applied(move: Move, lsn: str) -> bool:
    found = rows(
        move.source,
        # A role that may not see the other's activity waits for what is confirmed instead.
        "SELECT greatest(replay_lsn, confirmed_flush_lsn) >= %s::pg_lsn"
        " FROM pg_replication_slots LEFT JOIN pg_stat_replication ON pid = active_pid"
        " WHERE slot_name = %s",
        [lsn, record.name(move)],
    )
    if not found:
        raise MoveOvertaken(
            f"The replication slot of {move} is gone from {move.source}: somebody ended the move, "
            f"or dropped it. See `manage.py shards status`; before its point of no return the move "
            f"can be aborted."
        )
    return bool(found[0][0])
