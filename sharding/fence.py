"""The guard: triggers that refuse every write to rows of slots that the shard does not own.

Statement-level triggers with transition tables, so that bulk statements, COPY, raw SQL through an
old map and a hand in psql are all held to it. The owned slots stand in the function as a constant,
and not in a table that it would read: a transaction that locks a sharded table after the function
was replaced calls the new one, under every isolation level, so a change waits only for those that
hold such a lock already (see `writers`).

What the constants say is in the table of sharding.models.owned; sharding.ownership changes both.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.backends.utils import CursorWrapper
from psycopg.sql import SQL, Composable, Composed, Identifier, Literal

from sharding.errors import SlotMoved
from sharding.hashing import SLOTS
from sharding.slot_sql import slot_of
from sharding.tables import Table, tables

__all__ = [
    "CLEANING",
    "CLEANING_MOVE",
    "Ownership",
    "body",
    "guarded_columns",
    "install",
    "missing",
    "replace",
    "stored_bodies",
    "writers",
]

# While rows that were moved away are deleted, the first is "on" and the second the move's number:
# a mover that wakes late must not delete what another move has brought since.
CLEANING = "sharding.cleaning"
CLEANING_MOVE = "sharding.cleaning_move"

_SLOT = SQL("slot")
_TRIGGERS = {
    "insert": SQL("INSERT ON {} REFERENCING NEW TABLE AS new_rows"),
    "update": SQL("UPDATE ON {} REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows"),
    "delete": SQL("DELETE ON {} REFERENCING OLD TABLE AS old_rows"),
    "truncate": SQL("TRUNCATE ON {}"),
}


_WRITING = ["RowExclusiveLock", "ShareRowExclusiveLock", "ExclusiveLock", "AccessExclusiveLock"]


@dataclass(frozen=True)
class Ownership:
    """The slots in each state, and whether a move is under way."""

    owned: frozenset[int] = frozenset()
    fenced: frozenset[int] = frozenset()
    moved: frozenset[int] = frozenset()
    importing: frozenset[int] = frozenset()
    fenced_until: datetime | None = None
    moving: frozenset[int] = frozenset()  # owned ones that are being copied
    move: int = 0  # of which slots are moved or importing


def install(cursor: CursorWrapper) -> list[str]:
    """Give every sharded table that lacks them its triggers and what a move needs of it.

    Returns the tables that were changed. The guard must be there already.
    """
    present = _present_tables(cursor)
    changed = []
    for table in (table for table in tables() if table.name in present):
        missing = _TRIGGERS.keys() - _installed(cursor, table)
        for name in sorted(missing):
            cursor.execute(_create_trigger(table, name))
        if _set_replica_identity(cursor, table) or missing:
            changed.append(table.name)
    return changed


def replace(cursor: CursorWrapper, ownership: Ownership) -> None:
    """Make the guard say this, for one function for each name of a key's column."""
    for column in _key_columns():
        cursor.execute(
            SQL(
                "CREATE OR REPLACE FUNCTION {}() RETURNS trigger LANGUAGE plpgsql"
                " SET search_path = pg_catalog, pg_temp AS {}"
            ).format(_function(column), Literal(body(column, ownership)))
        )


def guarded_columns(cursor: CursorWrapper) -> set[str]:
    """Return the key columns of the sharded tables that are there."""
    present = _present_tables(cursor)
    return {table.key for table in tables() if table.name in present}


def missing(cursor: CursorWrapper) -> list[str]:
    """Return the sharded tables that are there and have not all triggers of the guard."""
    present = _present_tables(cursor)
    here = [table for table in tables() if table.name in present]
    return [table.name for table in here if _TRIGGERS.keys() - _installed(cursor, table)]


def writers(cursor: CursorWrapper) -> set[tuple[str, int | None]]:
    """Return the transactions, prepared ones too, that may still write by the guard as it was.

    Each is known by its virtual id, with its process, if any. They hold a lock on a sharded table:
    who takes one from now on learns that the guard was replaced.
    """
    cursor.execute(
        "SELECT DISTINCT virtualtransaction, pid FROM pg_locks"
        " WHERE locktype = 'relation' AND granted AND mode = ANY(%s)"
        " AND pid IS DISTINCT FROM pg_backend_pid()"
        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        " AND relation = ANY(SELECT to_regclass(name) FROM unnest(%s::text[]) AS name)",
        [_WRITING, [table.sql.as_string() for table in tables()]],
    )
    return {(transaction, process) for transaction, process in cursor.fetchall()}


def stored_bodies(cursor: CursorWrapper) -> dict[str, str]:
    """Return column -> the guard's source as the database has it."""
    names = {_function_name(column): column for column in _key_columns()}
    cursor.execute(
        "SELECT proname, prosrc FROM pg_proc WHERE proname = ANY(%s)"
        " AND pronamespace = current_schema()::regnamespace",
        [list(names)],
    )
    return {names[name]: source for name, source in cursor.fetchall()}


def body(column: str, ownership: Ownership) -> str:
    """Return the source of the guard of tables whose key is this column."""
    slot = slot_of(Identifier(column))
    refused = _refused(ownership)
    parts: Mapping[str, Composable] = {
        "old": SQL("SELECT {} AS slot FROM old_rows").format(slot),
        "new": SQL("SELECT {} AS slot FROM new_rows").format(slot),
        "refused": refused,
        "gone": _is_in(ownership.moved | ownership.importing),
        "moving": Literal(_first(_away(ownership) | ownership.moving)),
        "cleaning": Literal(CLEANING),
        "which": Literal(CLEANING_MOVE),
        "move": Literal(str(ownership.move)),
        "states": _states(ownership),
        "code": Literal(SlotMoved.sqlstate),
    }
    return _BODY.format(**parts).as_string()


_BODY = SQL("""
DECLARE refused int;
BEGIN
  IF TG_OP = 'INSERT' THEN
    SELECT slot INTO refused FROM ({new}) AS t WHERE {refused} LIMIT 1;
  ELSIF TG_OP = 'UPDATE' THEN
    SELECT slot INTO refused FROM ({old} UNION ALL {new}) AS t WHERE {refused} LIMIT 1;
  ELSIF TG_OP = 'TRUNCATE' THEN
    refused := {moving};
  ELSIF current_setting({cleaning}, true) = 'on' THEN
    SELECT slot INTO refused FROM ({old}) AS t
    WHERE NOT coalesce({gone} AND current_setting({which}, true) = {move}, false) LIMIT 1;
  ELSE
    SELECT slot INTO refused FROM ({old}) AS t WHERE {refused} LIMIT 1;
  END IF;
  IF refused IS NOT NULL THEN
    RAISE EXCEPTION '% on % is refused: on this shard slot % is %',
      TG_OP, TG_TABLE_NAME, refused, {states}
      USING ERRCODE = {code}, DETAIL = refused::text,
      HINT = 'Ask the slot map on the primary which shard owns it.';
  END IF;
  RETURN NULL;
END
""")


def _refused(ownership: Ownership) -> Composable:
    not_owned = SQL("NOT {}").format(_is_in(ownership.owned))
    if not ownership.fenced or ownership.fenced_until is None:
        return not_owned
    # A mover that dies while it fences stops nobody for long.
    return SQL("({} AND NOT ({} AND clock_timestamp() >= {}::timestamptz))").format(
        not_owned, _is_in(ownership.fenced), Literal(ownership.fenced_until.isoformat())
    )


def _states(ownership: Ownership) -> Composable:
    return SQL(
        "CASE WHEN {fenced} THEN 'about to leave' WHEN {moved} THEN 'given up'"
        " WHEN {importing} THEN 'only being copied' WHEN {owned} THEN 'being moved'"
        " ELSE 'not owned' END"
    ).format(
        fenced=_is_in(ownership.fenced, SQL("refused")),
        moved=_is_in(ownership.moved, SQL("refused")),
        importing=_is_in(ownership.importing, SQL("refused")),
        owned=_is_in(ownership.owned, SQL("refused")),
    )


def _away(ownership: Ownership) -> frozenset[int]:
    return ownership.fenced | ownership.moved | ownership.importing


def _first(slots: Iterable[int]) -> int | None:
    return min(slots, default=None)


def _is_in(slots: frozenset[int], slot: Composable = _SLOT) -> Composed:
    bits = "".join("01"[number in slots] for number in range(SLOTS))
    return SQL("(get_bit(B{}, {}) = 1)").format(Literal(bits), slot)


def _key_columns() -> list[str]:
    return sorted({table.key for table in tables()})


def _function_name(column: str) -> str:
    return f"sharding_guard_{column}"[:63]


def _function(column: str) -> Identifier:
    return Identifier(_function_name(column))


def _create_trigger(table: Table, name: str) -> Composed:
    return SQL(
        "CREATE OR REPLACE TRIGGER {} AFTER {} FOR EACH STATEMENT EXECUTE FUNCTION {}()"
    ).format(
        Identifier(f"sharding_guard_{name}"),
        _TRIGGERS[name].format(table.sql),
        _function(table.key),
    )


def _present_tables(cursor: CursorWrapper) -> set[str]:
    cursor.execute(
        "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p')"
        " AND relnamespace = current_schema()::regnamespace"
    )
    return {name for (name,) in cursor.fetchall()}


def _installed(cursor: CursorWrapper, table: Table) -> set[str]:
    cursor.execute(
        "SELECT substr(tgname, 16) FROM pg_trigger WHERE tgrelid = %s::regclass"
        " AND tgname LIKE 'sharding\\_guard\\_%%' AND tgenabled = 'O'",
        [table.sql.as_string()],
    )
    return {name for (name,) in cursor.fetchall()}


def _set_replica_identity(cursor: CursorWrapper, table: Table) -> bool:
    """Let a table whose primary key lacks the shard key be identified by an index that has it.

    A move's publication filters by the key, and then PostgreSQL refuses the UPDATEs of a table
    whose replica identity is without it. Says whether something was changed.
    """
    if table.key in table.pk:
        return False
    cursor.execute(_IDENTIFYING_INDEX, [table.sql.as_string(), table.key])
    found: Sequence[Any] | None = cursor.fetchone()
    if not found or found[1]:
        return False
    cursor.execute(
        SQL("ALTER TABLE {} REPLICA IDENTITY USING INDEX {}").format(
            table.sql, Identifier(found[0])
        )
    )
    return True


_IDENTIFYING_INDEX = """
    SELECT c.relname, i.indisreplident FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
    WHERE i.indrelid = %s::regclass AND i.indisunique AND i.indimmediate AND i.indisvalid
      AND i.indpred IS NULL AND i.indexprs IS NULL
      AND (SELECT bool_and(a.attnotnull) AND bool_or(a.attname = %s) FROM pg_attribute a
           WHERE a.attrelid = i.indrelid AND a.attnum = ANY(i.indkey))
    ORDER BY i.indisreplident DESC, c.relname LIMIT 1
"""
