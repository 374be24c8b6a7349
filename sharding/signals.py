"""Signals that this app sends."""

from django.dispatch import Signal

__all__ = ["fanned_out", "fell_back", "orphans_sought", "slots_arrived"]

# After a query was sent to several shards: model, aliases.
fanned_out = Signal()

# After copies answered because a database could not be reached: alias, the missing one's.
fell_back = Signal()

# Inside the transaction in which a shard becomes the owner of slots that were moved: alias, source
# (the owner before), slots, cursor (on the shard). What fails undoes it, and the move waits.
slots_arrived = Signal()

# `shards check`: repair. Receivers return sharding.moves.checking.Finding objects, about what is
# wrong with rows beyond what this app knows.
orphans_sought = Signal()
