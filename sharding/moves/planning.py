"""Which slots to move so that every shard has its share: by rows, in as few moves as it takes."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from psycopg.sql import SQL, Literal

from sharding import conf, slot_cache
from sharding.errors import MoveRefused
from sharding.moves.servers import rows, value
from sharding.slots import SlotMap
from sharding.tables import Table, tables

__all__ = ["Planned", "even_out", "rebalance", "rows_per_slot"]

_SAMPLED = 5_000_000  # rows; a larger table is counted by a sample of about a million


@dataclass(frozen=True)
class Planned:
    """A move that would help: the slots, and about how many rows they have."""

    source: str
    target: str
    slots: tuple[int, ...]
    rows: int


def rebalance(*, add: Collection[str] = (), empty: Collection[str] = ()) -> list[Planned]:
    """Plan moves that even out the shards that own slots and those to `add`; those to `empty` keep
    nothing. Raises MoveRefused for a name that is no shard.
    """
    if unknown := sorted({*add, *empty} - {*conf.shards()}):
        raise MoveRefused(
            f"{', '.join(unknown)} is no shard. Set DATABASE_SHARD_<n>_URL and run `manage.py "
            f"migrate` first. The shards are {', '.join(conf.shards())}."
        )
    slot_map = slot_cache.renew()
    sharing = sorted((slot_map.aliases | {*add}) - {*empty})
    if not sharing:
        raise MoveRefused("No shard would be left to own the slots.")
    return even_out(slot_map, rows_per_slot(slot_map), sharing)


def even_out(
    slot_map: SlotMap, weights: Mapping[int, int], sharing: Sequence[str]
) -> list[Planned]:
    """Plan moves after which each of `sharing` has about the same weight, the others none.

    The shard with the largest surplus gives to the one that lacks most, whole slots from the end of
    what it owns, so that ranges stay ranges.
    """
    # A slot counts a little in itself: empty ones are spread as well.
    weight = {slot: weights.get(slot, 0) + 0.001 for slot in range(len(slot_map.owners))}
    owned = {alias: sorted(slot_map.slots(alias)) for alias in slot_map.aliases | {*sharing}}
    share = sum(weight.values()) / len(sharing)
    surplus = {
        alias: sum(weight[slot] for slot in slots) - (share if alias in sharing else 0)
        for alias, slots in owned.items()
    }
    planned = []
    while True:
        source = max(surplus, key=lambda alias: (surplus[alias], alias))
        target = min(sharing, key=lambda alias: (surplus[alias], alias))
        amount = min(surplus[source], -surplus[target])
        slots = _taken(owned[source], weight, amount)
        if not slots:
            break
        moved = sum(weight[slot] for slot in slots)
        surplus[source] -= moved
        surplus[target] += moved
        planned.append(Planned(source, target, tuple(sorted(slots)), round(moved)))
    return planned + _rest(owned, weight, surplus, sharing)


def rows_per_slot(slot_map: SlotMap) -> dict[int, int]:
    """Return slot -> about how many rows its owner has for it, over all tables."""
    found: dict[int, int] = {}
    for alias in sorted(slot_map.aliases):
        owned = slot_map.slots(alias)
        for table in tables():
            for slot, number in _count(alias, table):
                if slot in owned:
                    found[slot] = found.get(slot, 0) + number
    return found


def _taken(slots: list[int], weight: Mapping[int, float], amount: float) -> list[int]:
    """Take from the end as many slots as come closest to the amount."""
    taken: list[int] = []
    while slots and amount >= weight[slots[-1]] / 2:
        amount -= weight[slots[-1]]
        taken.append(slots.pop())
    return taken


def _rest(
    owned: Mapping[str, list[int]],
    weight: Mapping[int, float],
    surplus: dict[str, float],
    sharing: Sequence[str],
) -> list[Planned]:
    """Move what a shard that is to be emptied still has, to whoever has least."""
    moves = []
    for source in sorted(owned.keys() - {*sharing}):
        if slots := owned[source]:
            target = min(sharing, key=lambda alias: surplus[alias])
            moved = sum(weight[slot] for slot in slots)
            surplus[target] += moved
            moves.append(Planned(source, target, tuple(slots), round(moved)))
    return moves


def _count(alias: str, table: Table) -> list[tuple[int, int]]:
    estimate = value(
        alias,
        "SELECT greatest(reltuples, 0)::bigint FROM pg_class WHERE oid = %s::regclass",
        [table.sql.as_string()],
    )
    percent = 100.0 if estimate < _SAMPLED else max(100e6 / estimate, 0.01)
    sample = SQL("" if percent == 100.0 else " TABLESAMPLE SYSTEM ({})").format(Literal(percent))
    query = SQL("SELECT {}, round(count(*) * {})::bigint FROM {}{} GROUP BY 1").format(
        table.slot, Literal(100.0 / percent), table.sql, sample
    )
    return rows(alias, query)
