"""ShardedModel, the base class of what users own; and the tables of slots, shards and moves."""

from sharding.models.local import LocalManager
from sharding.models.moves import Move
from sharding.models.owned import Identity, SlotOwner
from sharding.models.sharded import ShardedModel
from sharding.models.slots import Cluster, Shard, Slot
from sharding.orm.queryset import ShardedManager, ShardedQuerySet

__all__ = [
    "Cluster",
    "Identity",
    "LocalManager",
    "Move",
    "Shard",
    "ShardedManager",
    "ShardedModel",
    "ShardedQuerySet",
    "Slot",
    "SlotOwner",
]
