"""ShardedModel, the base class of what users own; and the slot map's table."""

from sharding.models.local import LocalManager
from sharding.models.sharded import ShardedModel
from sharding.models.slots import Slot
from sharding.orm.queryset import ShardedManager, ShardedQuerySet

__all__ = ["LocalManager", "ShardedManager", "ShardedModel", "ShardedQuerySet", "Slot"]
