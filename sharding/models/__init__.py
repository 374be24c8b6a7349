"""ShardedModel, the base class of what users own; and the slot map's table."""

from sharding.models.sharded import ShardedModel
from sharding.models.slots import Slot

__all__ = ["ShardedModel", "Slot"]
