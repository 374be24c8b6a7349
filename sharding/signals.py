"""Signals that this app sends."""

from django.dispatch import Signal

__all__ = ["fanned_out", "fell_back"]

# After a query was sent to several shards: model, aliases.
fanned_out = Signal()

# After copies answered because a database could not be reached: alias, the missing one's.
fell_back = Signal()
