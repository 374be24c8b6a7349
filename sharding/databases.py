"""The databases by their role, and the end of their connections."""

from uuid import UUID

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

from sharding import conf, slot_cache
from sharding.slot_cache import get_shard_for_user_id

__all__ = ["DatabaseManager"]


class DatabaseManager:
    """Hands out Django's connections by role; `connection.alias` is what `.using()` takes."""

    def get_primary(self) -> BaseDatabaseWrapper:
        """The connection to the primary: accounts, sessions, the slot map."""
        return connections[conf.primary()]

    def get_analytics(self) -> BaseDatabaseWrapper:
        """The connection to the analytics database."""
        return connections[conf.analytics()]

    def get_shard(self, user_id: UUID | str) -> BaseDatabaseWrapper:
        """The connection to the shard that owns a user. Raises InvalidShardKey."""
        return connections[get_shard_for_user_id(user_id)]

    def disconnect(self) -> None:
        """Close this thread's connections and the whole process's pools; safe to call again."""
        for alias in connections:
            connection = connections[alias]
            connection.close()
            # close() only gives a pooled connection back; the server still holds it.
            if close_pool := getattr(connection, "close_pool", None):
                close_pool()
        slot_cache.clear()
