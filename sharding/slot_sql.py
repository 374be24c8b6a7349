"""A key's slot as SQL, and slots as ranges."""

from collections.abc import Iterable, Sequence
from itertools import groupby

from psycopg.sql import SQL, Composable, Composed, Literal

from sharding.hashing import SLOTS

__all__ = ["in_slots", "ranges", "slot_of"]


def slot_of(key: Composable) -> Composed:
    """The slot of a UUID, as `hashing.slot_for` computes it: of built-in functions alone, for
    nothing else may stand in a publication's filter.
    """
    return SQL(
        "mod((get_byte(uuid_send({key}), 0)::bigint << 24) | (get_byte(uuid_send({key}), 1) << 16)"
        " | (get_byte(uuid_send({key}), 2) << 8) | get_byte(uuid_send({key}), 3), {n})::int"
    ).format(key=key, n=Literal(SLOTS))


def in_slots(slot: Composable, slots: Iterable[int]) -> Composed:
    """Say in SQL whether a slot is one of these."""
    parts: list[Composable] = [
        SQL("{} BETWEEN {} AND {}").format(slot, Literal(first), Literal(last))
        for first, last in ranges(slots)
    ]
    return SQL("({})").format(SQL(" OR ").join(parts or [SQL("false")]))


def ranges(slots: Iterable[int]) -> list[tuple[int, int]]:
    """Return the slots as ranges, both ends included."""
    runs = groupby(enumerate(sorted(set(slots))), key=lambda pair: pair[1] - pair[0])
    members: list[Sequence[int]] = [[slot for _, slot in run] for _, run in runs]
    return [(run[0], run[-1]) for run in members]
