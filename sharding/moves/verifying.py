"""Whether the target has what the source has, slot by slot and if need be row by row.

Rows change while both sides are read, so a slot that differs is looked at again, until it has been
equal once.
"""

from collections.abc import Iterable

from psycopg.sql import SQL, Composable, Composed, Identifier, Literal

from sharding.comparing import Hashes, differences, hashes
from sharding.errors import MoveFailed
from sharding.models.moves import Move
from sharding.moves import record
from sharding.moves.copying import Progress, Report, drained
from sharding.moves.servers import rows, value
from sharding.slot_sql import in_slots
from sharding.tables import Table, tables

__all__ = ["verify"]

_LOOKS = 5  # at whole slots
_LOOKS_AT_ROWS = 60
_SHOWN = 10
_TIMEOUT = 60.0  # seconds

# Types whose hash is the same on every server; others, and those without a hash, are compared as
# text.
_HASHED = {
    *("bool", "int2", "int4", "int8", "float4", "float8", "numeric", "text", "varchar", "bpchar"),
    *("bytea", "uuid", "date", "time", "timestamp", "timestamptz", "interval", "inet", "jsonb"),
}


def verify(move: Move, report: Report) -> int:
    """Compare all rows of the move; return how many there are. Raises MoveFailed."""
    _require_no_conflicts(move)
    return sum(_verify_table(move, table, report) for table in tables())


def _verify_table(move: Move, table: Table, report: Report) -> int:
    differing, total = set(move.slots), 0
    for _ in range(_LOOKS):
        here, there = _hashes(move, table, differing, by=table.slot)
        total += sum(here[slot][0] for slot in here if here[slot] == there.get(slot))
        differing = differences(here, there)
        report(
            Progress(f"comparing {table.name}", len(move.slots) - len(differing), len(move.slots))
        )
        if not differing:
            return total
        drained(move, timeout=_TIMEOUT)
    return total + _verify_rows(move, table, differing, report)


def _verify_rows(move: Move, table: Table, slots: set[int], report: Report) -> int:
    """Compare the rows of slots that are never quiet, each until it has been equal once."""
    by = _row_key(table)
    here, there = _hashes(move, table, slots, by=by)
    total, differing = len(here), differences(here, there)
    for _ in range(_LOOKS_AT_ROWS):
        if not differing:
            return total
        report(Progress(f"comparing {table.name}, rows that differ", 0, len(differing)))
        drained(move, timeout=_TIMEOUT)
        here, there = _hashes(move, table, slots, by=by, only=differing)
        differing = differences(here, there)
    shown = ", ".join(sorted(map(str, differing))[:_SHOWN])
    raise MoveFailed(
        f"{len(differing)} rows of {table.name} in the slots {sorted(slots)[:_SHOWN]} differ "
        f"between {move.source} and {move.target} and do not become equal: {shown}. Abort the "
        f"move: nothing was switched yet. Then look into who writes to {move.target} by hand."
    )


def _hashes(
    move: Move,
    table: Table,
    slots: Iterable[int],
    *,
    by: Composable,
    only: Iterable[object] | None = None,
) -> tuple[Hashes, Hashes]:
    """Return the hashes of each side's rows, grouped."""
    which = in_slots(table.slot, slots)
    if only is not None:
        which = SQL("{} AND {} = ANY({})").format(which, by, Literal(list(map(str, only))))
    query = SQL(
        "SELECT {by}, count(*), bit_xor(hash_record_extended(ROW({columns}), 0))"
        " FROM {table} WHERE {which} GROUP BY 1"
    ).format(by=by, columns=_compared(move, table), table=table.sql, which=which)
    # The planner takes the rows for few, and would sort them all, on disk. And one core of each
    # server is enough: people use it meanwhile.
    settings = "SET LOCAL enable_sort = off; SET LOCAL max_parallel_workers_per_gather = 0"
    asked = dict.fromkeys((move.source, move.target), (query.as_string(), None))
    source, target = hashes(asked, settings=settings)
    return source, target


def _row_key(table: Table) -> Composed:
    columns = SQL(", ").join(SQL("{}::text").format(Identifier(column)) for column in table.pk)
    return SQL("concat_ws(',', {})").format(columns)


def _compared(move: Move, table: Table) -> Composed:
    types = dict(
        rows(
            move.source,
            "SELECT attname, typname FROM pg_attribute JOIN pg_type t ON t.oid = atttypid"
            " WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
            [table.sql.as_string()],
        )
    )
    return SQL(", ").join(
        SQL("{}" if kind in _HASHED else "{}::text").format(Identifier(column))
        for column, kind in types.items()
    )


def _require_no_conflicts(move: Move) -> None:
    """PostgreSQL 18 counts the changes that found another row than they should, or none."""
    found = value(
        move.target,
        "SELECT jsonb_object_agg(key, value)::text FROM pg_stat_subscription_stats s,"
        " jsonb_each_text(to_jsonb(s)) WHERE subname = %s AND starts_with(key, 'confl_')"
        " AND value <> '0'",
        [record.name(move)],
    )
    if found:
        raise MoveFailed(
            f"{move.target} met rows that are not as they were on {move.source}: {found}. Somebody "
            f"writes to the copies. Abort the move and begin again."
        )
