"""Whether every row stands where the map says, and setting right what can safely be."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.db import DatabaseError, connections
from psycopg.sql import SQL, Identifier

from sharding import conf, fence, identity, ownership, slot_cache
from sharding.errors import ShardingError
from sharding.models.owned import SlotOwner
from sharding.moves import cleaning, leftovers, record
from sharding.moves.servers import rows
from sharding.signals import orphans_sought
from sharding.slot_sql import in_slots, ranges
from sharding.tables import Table, tables

__all__ = ["Finding", "check"]

State = SlotOwner.State

_NO_MOVE = 0  # moves are numbered from 1


@dataclass(frozen=True)
class Finding:
    """Something that is wrong, and whether it was set right."""

    text: str
    repaired: bool = False


def check(*, repair: bool = False) -> Iterator[Finding]:
    """Yield what is wrong; with `repair`, after setting right what can be without losing a row.

    Slots that just move are left alone.
    """
    for alias in conf.shards():
        try:
            yield from _check_shard(alias, repair=repair)
        except (DatabaseError, ShardingError) as error:
            yield Finding(f"{alias} could not be checked: {error}")
    answers: list[tuple[Any, Any]] = orphans_sought.send(check, repair=repair)
    for _, findings in answers:
        yield from findings


def _check_shard(alias: str, *, repair: bool) -> Iterator[Finding]:
    connections[alias].ensure_connection()
    if problem := identity.problem(alias, connections[alias].connection):
        yield Finding(problem)
        return
    yield from _guard(alias, repair=repair)
    yield from _stray_states(alias, repair=repair)
    for each in leftovers.find(alias):
        yield Finding(f"{each.what}. {each.remedy}")
    for table in reversed(tables()):
        yield from _foreign_rows(alias, table, repair=repair)


def _guard(alias: str, *, repair: bool) -> Iterator[Finding]:
    with connections[alias].cursor() as cursor:
        agrees = ownership.guard_agrees(cursor)
        missing = fence.missing(cursor)
    if not agrees:
        if repair:
            with ownership.changing(alias):
                pass  # which writes the guard anew
        yield Finding(f"The guard of {alias} did not say what its table of slots says.", repair)
    if missing:
        if repair:
            with connections[alias].cursor() as cursor:
                fence.install(cursor)
        yield Finding(f"{', '.join(missing)} on {alias} had not all triggers of the guard.", repair)


def _stray_states(alias: str, *, repair: bool) -> Iterator[Finding]:
    """Slots that believe to be in a move that has ended: as it ended so, they go back, or go."""
    move = record.active()
    with connections[alias].cursor() as cursor:
        known = ownership.read(cursor)
    stray = [slot for slot, o in known.items() if o.move not in (None, move.pk if move else None)]
    if not stray:
        return
    ours = slot_cache.renew().slots(alias)
    back = [slot for slot in stray if slot in ours and known[slot].state != State.MOVED]
    gone = [slot for slot in stray if slot not in ours and known[slot].state != State.OWNED]
    if repair:
        for ended in {known[slot].move or 0 for slot in gone}:
            slots = [slot for slot in gone if known[slot].move == ended]
            cleaning.delete_rows(alias, slots, ended, lambda progress: None)
        with ownership.changing(alias) as cursor:
            ownership.claim(cursor, back)
            ownership.release(cursor, gone)
    done = repair and len(back) + len(gone) == len(stray)
    yield Finding(f"{alias} believed that the slots {ranges(stray)} were moving.", done)


def _foreign_rows(alias: str, table: Table, *, repair: bool) -> Iterator[Finding]:
    """Rows of slots that the shard does not own. Copies go; what stands nowhere else stays."""
    with connections[alias].cursor() as cursor:
        known = ownership.read(cursor)
    key = SQL(", ").join(map(Identifier, table.pk))
    query = SQL("SELECT {}, {} FROM {} WHERE NOT {}").format(
        table.slot, key, table.sql, in_slots(table.slot, known)
    )
    foreign = [(slot, tuple(pk)) for slot, *pk in rows(alias, query)]
    if not foreign:
        return
    copies = [each for each in foreign if _stands_at_home(table, *each)]
    done = bool(repair and copies)
    if done:
        _delete(alias, table, copies)
    if copies:
        yield Finding(
            f"{alias} has {len(copies)} rows of slots of other shards in {table.name}, which "
            f"stand where they belong as well.",
            done,
        )
    if alone := len(foreign) - len(copies):
        yield Finding(
            f"{alias} has {alone} rows of slots of other shards in {table.name} that stand nowhere "
            f"else. Nobody sees them. Copy what is wanted to its owner by hand; they are not "
            f"removed."
        )


def _stands_at_home(table: Table, slot: int, pk: tuple[Any, ...]) -> bool:
    owner = slot_cache.current().owners[slot]
    where = SQL(" AND ").join(SQL("{} = %s").format(Identifier(column)) for column in table.pk)
    query = SQL("SELECT true FROM {} WHERE {}").format(table.sql, where)
    return bool(rows(owner, query, pk))


def _delete(alias: str, table: Table, copies: list[tuple[int, tuple[Any, ...]]]) -> None:
    """Delete rows of slots that the shard does not know, which the guard must be told of."""
    slots = {slot for slot, _ in copies}
    where = SQL(" AND ").join(SQL("{} = %s").format(Identifier(column)) for column in table.pk)
    statement = SQL("DELETE FROM {} WHERE {}").format(table.sql, where)
    with ownership.changing(alias) as cursor:
        ownership.require(cursor, slots, [("", None)])  # no move brings them here meanwhile
        ownership.set_state(cursor, slots, State.MOVED, move=_NO_MOVE)
        fence.replace(cursor, ownership.summary(ownership.read(cursor)))
        cleaning.allow_cleaning(cursor, _NO_MOVE)
        for _, pk in copies:
            cursor.execute(statement.as_string(), pk)
        ownership.release(cursor, slots)
