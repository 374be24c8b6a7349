"""Today's models."""

from tests.sharding.notes.first import Migration

__all__ = ["Migration"]
