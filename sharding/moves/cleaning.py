"""The end of a move, or of one that was given up: no replication object and no row stays behind."""

from collections.abc import Collection

from django.db import connections, transaction
from django.db.backends.utils import CursorWrapper
from psycopg.sql import SQL, Identifier, Literal

from sharding import fence, ownership
from sharding.errors import MoveFailed
from sharding.models.moves import Move
from sharding.models.owned import SlotOwner
from sharding.moves import handover, record
from sharding.moves.copying import Progress, Report
from sharding.moves.servers import execute, rows, value, wait_for
from sharding.slot_sql import in_slots
from sharding.tables import Table, tables

__all__ = ["allow_cleaning", "clean", "delete_rows", "drop_replication", "tidy", "undo"]

State = SlotOwner.State

_PAGES = 500  # of a table, in one transaction
_OLD = 60.0  # seconds to wait for transactions from before the switch
_DROPPED = 60.0


def clean(move: Move, report: Report) -> None:
    """Delete the moved rows on the source, which nobody reads any more. Raises MoveFailed."""
    drop_replication(move)
    report(Progress(f"waiting for transactions on {move.source} from before the switch"))
    _wait_for_readers(move.source)
    with connections[move.source].cursor() as cursor:
        states = ownership.require(
            cursor, move.slots, [(State.MOVED, move.pk), ("", None), (State.OWNED, None)]
        )
    if State.MOVED not in states:
        return  # done before; the slots may even have come back since
    delete_rows(move.source, move.slots, move.pk, report)
    _release(move.source, move, State.MOVED)


def undo(move: Move, report: Report) -> None:
    """Give a move up: nothing stays of it on either side. Raises MoveFailed.

    Raises MoveOvertaken where the source has given the slots up already.
    """
    with ownership.changing(move.source) as cursor:
        ownership.require(
            cursor,
            move.slots,
            [(State.OWNED, None), (State.OWNED, move.pk), (State.FENCED, move.pk)],
        )
        ownership.claim(cursor, move.slots)
    handover.unsubscribe(move)
    drop_replication(move)
    if not value(move.target, "SELECT to_regclass('sharding_slotowner')"):
        return  # an empty server in place of one that was lost; `migrate` waits for us to end
    delete_rows(move.target, move.slots, move.pk, report)
    _release(move.target, move, State.IMPORTING)


def drop_replication(move: Move) -> None:
    """Drop what the source has of the move: its replication slots, those of each table's copy, and
    the publication.
    """
    name = record.name(move)
    system = value(move.target, "SELECT system_identifier::text FROM pg_control_system()")
    pattern = f"^pg_[0-9]+_sync_[0-9]+_{system}$"
    for (slot,) in rows(
        move.source,
        "SELECT slot_name FROM pg_replication_slots WHERE database = current_database()"
        " AND (slot_name = %s OR slot_name ~ %s)",
        [name, pattern],
    ):
        wait_for(
            lambda slot=slot: _drop_slot(move.source, slot),  # type: ignore[misc]
            f"the replication slot {slot} on {move.source} to be free",
            timeout=_DROPPED,
        )
    execute(move.source, SQL("DROP PUBLICATION IF EXISTS {}").format(Identifier(name)))


def delete_rows(alias: str, slots: Collection[int], move: int, report: Report) -> int:
    """Delete the rows of slots that the shard does not own since a move, in batches; say how many.

    Raises SlotMoved where the shard knows these slots by another move, or owns them.
    """
    deleted = 0
    for table in reversed(tables()):
        pages = value(
            alias,
            "SELECT pg_relation_size(%s::regclass) / current_setting('block_size')::int",
            [table.sql.as_string()],
        )
        for first in range(0, pages, _PAGES):
            deleted += _delete_pages(alias, table, slots, first, move)
            report(Progress(f"cleaning {table.name}", min(first + _PAGES, pages), pages))
    return deleted


def tidy(move: Move) -> None:
    """Take back what a mover that slept has done for a move that had ended meanwhile."""
    handover.unsubscribe(move)
    drop_replication(move)
    for alias, state in ((move.source, State.OWNED), (move.target, State.IMPORTING)):
        with ownership.changing(alias) as cursor:
            known = ownership.read(cursor).items()
            stray = [slot for slot, o in known if (o.state, o.move) == (state, move.pk)]
            if state == State.OWNED:
                ownership.claim(cursor, stray)
            else:
                ownership.release(cursor, stray)


def allow_cleaning(cursor: CursorWrapper, move: int) -> None:
    """Let this transaction delete what a move left. The guard lets only such rows pass then, and
    the change log does not take them for deleted.
    """
    for name, setting in ((fence.CLEANING, "on"), (fence.CLEANING_MOVE, str(move))):
        cursor.execute("SELECT set_config(%s, %s, true)", [name, setting])


def _delete_pages(alias: str, table: Table, slots: Collection[int], first: int, move: int) -> int:
    statement = SQL("DELETE FROM {} WHERE ctid >= {}::tid AND ctid < {}::tid AND {}").format(
        table.sql,
        Literal(f"({first},0)"),
        Literal(f"({first + _PAGES},0)"),
        in_slots(table.slot, slots),
    )
    with transaction.atomic(using=alias, durable=True), connections[alias].cursor() as cursor:
        allow_cleaning(cursor, move)
        cursor.execute(statement)
        return cursor.rowcount


def _release(alias: str, move: Move, state: str) -> None:
    with ownership.changing(alias) as cursor:
        ownership.require(cursor, move.slots, [(state, move.pk), ("", None)])
        ownership.release(cursor, move.slots)


def _drop_slot(alias: str, slot: str) -> bool:
    """Drop a replication slot, unless somebody uses it just now; say whether it is gone."""
    execute(
        alias,
        "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots"
        " WHERE slot_name = %s AND NOT active",
        [slot],
    )
    return not value(alias, "SELECT true FROM pg_replication_slots WHERE slot_name = %s", [slot])


def _wait_for_readers(alias: str) -> None:
    """Wait for the transactions that are open: one from before the switch may still read here."""
    before = _open(alias)
    try:
        wait_for(
            lambda: not before.keys() & _open(alias).keys(),
            f"transactions on {alias} from before the switch",
            timeout=_OLD,
            pause=0.05,
        )
    except MoveFailed as error:
        left = sorted(before[each] for each in before.keys() & _open(alias).keys())
        raise MoveFailed(
            f"{error} See processes {', '.join(map(str, left))} in pg_stat_activity. The users are "
            f"moved and lack nothing; only their old rows still stand on {alias}. When those "
            f"transactions are over: `manage.py shards move --resume`."
        ) from error


def _open(alias: str) -> dict[str, int]:
    """Return the open transactions of clients in this database, with their processes."""
    return dict(rows(alias, _OPEN))


# Every role may see who has a transaction, not since when.
_OPEN = """
    SELECT l.virtualtransaction, l.pid FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
    WHERE l.locktype = 'virtualxid' AND l.pid <> pg_backend_pid()
      AND a.datid = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND coalesce(a.backend_type, 'client backend') = 'client backend'
"""
