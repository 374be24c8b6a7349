"""Signals that this app sends."""

from django.dispatch import Signal

__all__ = ["fanned_out"]

# After a query was sent to several shards: model, aliases.
fanned_out = Signal()
