"""Which shards a queryset goes to."""

from typing import TYPE_CHECKING, Any

from sharding import slot_cache
from sharding.context import current_shard
from sharding.errors import ShardKeyRequired
from sharding.hashing import SLOTS, slot_for
from sharding.orm.keys import NO_KEY, key_name, keys_in
from sharding.slots import SlotMap

if TYPE_CHECKING:
    from sharding.orm.dispatch import Dispatch

__all__ = ["aliases_for", "slots_of"]


def aliases_for(queryset: "Dispatch[Any]", slot_map: SlotMap | None = None) -> tuple[str, ...]:
    """Return the aliases, one or more: `.using()` goes before a key in the query, that before
    `.across_shards()`, that before `use_shard`. Raises ShardKeyRequired where none of them says.

    Asked each time and never stored: a stored alias would survive `|` and the move of a slot.
    """
    if queryset._db:
        return (queryset._db,)
    slot_map = slot_map or slot_cache.current()
    keys = keys_in(queryset.query)
    if keys is not None:
        owners = {slot_map.owners[slot_for(key)] for key in keys}
        # No key at all: any shard can say that there are no rows.
        return tuple(sorted(owners)) or (slot_map.owners[0],)
    model = queryset.model
    if queryset._across and key_name(model):
        return tuple(sorted(slot_map.aliases))
    if (alias := current_shard()) and not queryset._across:
        return (alias,)
    if not key_name(model):
        raise ShardKeyRequired(f"This query on {model._meta.label} names no shard. {NO_KEY}")
    raise ShardKeyRequired(
        f"This query on {model._meta.label} does not say whose rows it wants. Add a filter on "
        f"{key_name(model)}, or say {model.__name__}.objects.across_shards() to ask every shard, "
        f"or write it inside `with use_shard(alias):`."
    )


def slots_of(queryset: "Dispatch[Any]") -> frozenset[int]:
    """Return the slots of all rows that the query may want: those of its keys, or every one."""
    keys = keys_in(queryset.query)
    return frozenset(range(SLOTS) if keys is None else map(slot_for, keys))
