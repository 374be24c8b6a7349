"""The slot map: which shard owns which slot. Pure: knows neither Django nor how a map is stored."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby

from sharding.errors import InvalidSlotMap
from sharding.hashing import SLOTS

__all__ = ["SlotMap", "read_ranges"]

_PART = re.compile(r"\s*(\w+)\s*=\s*(\d+)\s*-\s*(\d+)\s*", re.ASCII)
_FORM = "shard_1=0-333,shard_2=334-666,shard_3=667-999"


@dataclass(frozen=True)
class SlotMap:
    """Every slot's owner: `owners[slot]` is a shard's alias. `version` grows with every change.

    While slots move, their rows stand on two shards: `hidden` is alias -> the slots whose rows
    there do not count. `handing_over` says that some are about to change their owner.
    """

    owners: tuple[str, ...]
    version: int = 1
    hidden: Mapping[str, frozenset[int]] = field(default_factory=dict, hash=False)
    handing_over: bool = False

    def __post_init__(self) -> None:
        if len(self.owners) != SLOTS:
            raise InvalidSlotMap(
                f"A slot map has {SLOTS} slots, 0 to {SLOTS - 1}; this one has {len(self.owners)}."
            )

    @classmethod
    def parse(cls, text: str) -> "SlotMap":
        """Read a map from text like `shard_1=0-499,shard_2=500-999`; ranges include both ends."""
        parts = map(_read_part, text.split(","))
        return cls.from_pairs(
            (slot, alias) for alias, first, last in parts for slot in range(first, last + 1)
        )

    @classmethod
    def even(cls, aliases: Sequence[str]) -> "SlotMap":
        """Give each of `aliases` its share of the slots, in one range each, in this order."""
        if not aliases:
            raise InvalidSlotMap(
                "There is no shard to own the slots. Declare DATABASE_SHARD_1_URL."
            )
        size, larger = divmod(SLOTS, len(aliases))
        owners: list[str] = []
        for position, alias in enumerate(aliases):
            owners += [alias] * (size + (position < larger))
        return cls(tuple(owners))

    @classmethod
    def from_pairs(
        cls,
        pairs: Iterable[tuple[int, str]],
        *,
        version: int = 1,
        hidden: Mapping[str, frozenset[int]] | None = None,
        handing_over: bool = False,
    ) -> "SlotMap":
        """Make a map of (slot, alias) pairs in any order; each slot must come exactly once."""
        owners: dict[int, str] = {}
        for slot, alias in pairs:
            if not 0 <= slot < SLOTS:
                raise _no_slot(slot)
            if slot in owners:
                raise InvalidSlotMap(
                    f"Slot {slot} is given to both {owners[slot]} and {alias}. Give each slot "
                    f"once, e.g. {_FORM}."
                )
            owners[slot] = alias
        if missing := [slot for slot in range(SLOTS) if slot not in owners]:
            raise InvalidSlotMap(
                f"{len(missing)} slots have no owner, the first of them slot {missing[0]}. Every "
                f"slot from 0 to {SLOTS - 1} needs one, e.g. {_FORM}."
            )
        return cls(
            tuple(owners[slot] for slot in range(SLOTS)), version, hidden or {}, handing_over
        )

    @cached_property
    def aliases(self) -> frozenset[str]:
        """The shards that own at least one slot."""
        return frozenset(self.owners)

    def slots(self, alias: str) -> frozenset[int]:
        """Return the slots that a shard owns."""
        return frozenset(slot for slot, owner in enumerate(self.owners) if owner == alias)

    def alias(self, slot: int) -> str:
        """Return the shard that owns a slot. Raises InvalidSlotMap for a number that is none."""
        if not 0 <= slot < SLOTS:
            raise _no_slot(slot)
        return self.owners[slot]

    def require_known(self, known: Iterable[str]) -> None:
        """Raise InvalidSlotMap when a slot belongs to an alias that is not among `known`."""
        if unknown := sorted(self.aliases - set(known)):
            raise InvalidSlotMap(
                f"The slot map gives slots to {', '.join(unknown)}, which DATABASES does not "
                f"declare as a shard. Set DATABASE_SHARD_<n>_URL for it, or correct the map."
            )

    def __str__(self) -> str:
        ranges, start = [], 0
        for alias, run in groupby(self.owners):
            length = len(list(run))
            ranges.append(f"{alias}={start}-{start + length - 1}")
            start += length
        return ",".join(ranges)


def read_ranges(text: str) -> set[int]:
    """Read slots like `5,300-333`; ranges include both ends. Raises InvalidSlotMap."""
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = (each.strip() for each in part.partition("-"))
        ends = [first, last] if dash else [first, first]
        if not all(end.isascii() and end.isdecimal() and len(end) < 6 for end in ends):
            raise InvalidSlotMap(f"{part!r} is no slot and no range of slots, like 300-333.")
        if not int(ends[0]) <= int(ends[1]) < SLOTS:
            raise _no_slot_range(part)
        found.update(range(int(ends[0]), int(ends[1]) + 1))
    return found


def _no_slot(slot: int) -> InvalidSlotMap:
    return InvalidSlotMap(f"{slot} is no slot: slots run from 0 to {SLOTS - 1}.")


def _no_slot_range(part: str) -> InvalidSlotMap:
    return InvalidSlotMap(
        f"{part.strip()!r} is no range of slots: they run from 0 to {SLOTS - 1}, the smaller "
        f"number first."
    )


def _read_part(part: str) -> tuple[str, int, int]:
    match = _PART.fullmatch(part)
    if not match:
        raise InvalidSlotMap(f"{part!r} is no range of slots. Write the map like {_FORM}.")
    alias, first, last = match[1], int(match[2]), int(match[3])
    if not first <= last < SLOTS:
        raise _no_slot_range(part)
    return alias, first, last
