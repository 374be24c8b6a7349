"""Test databases."""

from contextlib import nullcontext

from django.db.backends.postgresql import creation

from sharding import conf
from sharding.context import use_shard

__all__ = ["DatabaseCreation"]


class DatabaseCreation(creation.DatabaseCreation):
    """Puts back, for `serialized_rollback`, what a database held: Django leaves out which one."""

    def deserialize_db_from_string(self, data: str) -> None:
        alias = self.connection.alias
        with use_shard(alias) if alias in conf.shards() else nullcontext():
            super().deserialize_db_from_string(data)
