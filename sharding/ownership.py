"""Which slots a shard owns, by its own account: the table and the guard, changed together."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from django.db import connections, transaction
from django.db.backends.utils import CursorWrapper

from sharding import fence
from sharding.errors import MoveOvertaken
from sharding.fence import Ownership
from sharding.models.owned import SlotOwner

__all__ = ["Owner", "changing", "claim", "guard_agrees", "read", "release", "require", "set_state"]

State = SlotOwner.State


@dataclass(frozen=True)
class Owner:
    """What a shard says of one slot."""

    state: str
    move: int | None = None
    fenced_until: datetime | None = None


_UNKNOWN = Owner("")


def read(cursor: CursorWrapper) -> dict[int, Owner]:
    """Return what the shard says of each slot that it knows."""
    cursor.execute("SELECT slot, state, move, fenced_until FROM sharding_slotowner")
    return {slot: Owner(*rest) for slot, *rest in cursor.fetchall()}


@contextmanager
def changing(alias: str) -> Iterator[CursorWrapper]:
    """One transaction that changes the table, and at its end the guard; on disk when it is over."""
    with transaction.atomic(using=alias, durable=True), connections[alias].cursor() as cursor:
        cursor.execute("SET LOCAL synchronous_commit = on")
        # One at a time: two that replace the guard at once would fail.
        cursor.execute("LOCK TABLE sharding_slotowner IN SHARE ROW EXCLUSIVE MODE")
        yield cursor
        fence.replace(cursor, summary(read(cursor)))


def require(
    cursor: CursorWrapper, slots: Collection[int], allowed: Collection[tuple[str, int | None]]
) -> set[str]:
    """Return the states of these slots; each must be one of `allowed`, a state and a move.

    ("", None) stands for a slot that the shard does not know. Raises MoveOvertaken.
    """
    known = read(cursor)
    found = {slot: known.get(slot, _UNKNOWN) for slot in slots}
    for slot, owner in found.items():
        if (owner.state, owner.move) not in allowed:
            raise MoveOvertaken(
                f"Slot {slot} is {owner.state or 'unknown'} on {cursor.db.alias}"
                f"{f' in move {owner.move}' if owner.move else ''}, which this step of the move "
                f"does not expect: somebody else went on with it. See `manage.py shards status`."
            )
    return {owner.state for owner in found.values()}


def set_state(
    cursor: CursorWrapper,
    slots: Collection[int],
    state: str,
    *,
    move: int | None,
    fenced_until: datetime | None = None,
) -> None:
    """Write a state of slots, inside `changing`."""
    cursor.execute(
        "INSERT INTO sharding_slotowner (slot, state, move, fenced_until)"
        " SELECT slot, %s, %s, %s FROM unnest(%s::int[]) AS slot ON CONFLICT (slot) DO UPDATE SET"
        " state = excluded.state, move = excluded.move, fenced_until = excluded.fenced_until",
        [state, move, fenced_until, list(slots)],
    )


def claim(cursor: CursorWrapper, slots: Collection[int]) -> None:
    """Write that the shard owns these slots, inside `changing`."""
    set_state(cursor, slots, State.OWNED, move=None)


def release(cursor: CursorWrapper, slots: Collection[int]) -> None:
    """Write that the shard has nothing to do with these slots any more, inside `changing`."""
    cursor.execute("DELETE FROM sharding_slotowner WHERE slot = ANY(%s)", [list(slots)])


def summary(owners: dict[int, Owner]) -> Ownership:
    """Return the table's content as the guard is told it."""

    def those(state: str) -> frozenset[int]:
        return frozenset(slot for slot, owner in owners.items() if owner.state == state)

    until = [owner.fenced_until for owner in owners.values() if owner.fenced_until]
    return Ownership(
        owned=those(State.OWNED),
        fenced=those(State.FENCED),
        moved=those(State.MOVED),
        importing=those(State.IMPORTING),
        fenced_until=max(until, default=None),
        moving=frozenset(slot for slot, owner in owners.items() if owner.move is not None),
        move=max((o.move or 0 for o in owners.values() if o.state != State.OWNED), default=0),
    )


def guard_agrees(cursor: CursorWrapper) -> bool:
    """Say whether every table's guard is there and says what the table of slots says."""
    ownership = summary(read(cursor))
    stored = fence.stored_bodies(cursor)
    return all(
        stored.get(column) == fence.body(column, ownership)
        for column in fence.guarded_columns(cursor)
    )
