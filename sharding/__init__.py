"""One application over many PostgreSQL servers: routing, sharding, moving.

It knows nothing of the users it serves: no model of theirs is named here.
This module is the public surface; it imports no models, because Django's app registry is not ready
when it is read.
"""

from sharding.context import use_shard
from sharding.slot_cache import get_shard_for_user_id
from sharding.transactions import atomic, on_commit

__all__ = ["atomic", "get_shard_for_user_id", "on_commit", "use_shard"]
