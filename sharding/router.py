"""The router: which database a query, a relation and a migration belong to."""

from typing import Any

from django.db import models

from sharding import migrating, slot_cache
from sharding.context import current_shard
from sharding.errors import ShardKeyRequired
from sharding.models.sharded import ShardedModel
from sharding.placement import PRIMARY_AND_SHARDS, SHARDS, aliases_at, place

__all__ = ["DatabaseRouter"]


class DatabaseRouter:
    """Decides by the model first, then by hints; see the table in docs/routing.md."""

    def db_for_read(self, model: type[models.Model], **hints: Any) -> str:
        """Return the alias. Raises ShardKeyRequired for a sharded model without a key."""
        where = place(model)
        if where in (SHARDS, PRIMARY_AND_SHARDS):
            return _shard(model, hints.get("instance"))
        return where

    def db_for_write(self, model: type[models.Model], **hints: Any) -> str:
        """Return the alias; the same as for reading."""
        return self.db_for_read(model, **hints)

    def allow_relation(self, obj1: models.Model, obj2: models.Model, **hints: Any) -> bool:
        """Allow relations inside one database only; on shards, between rows of one key only.

        Two users share a shard only until a slot moves.
        """
        if place(type(obj1)) != place(type(obj2)):
            return False
        if not isinstance(obj1, ShardedModel) or not isinstance(obj2, ShardedModel):
            return True
        if obj1._state.adding or obj2._state.adding:
            return True  # the new one takes the other's key; saving it checks the shard
        keys = {_key(obj1), _key(obj2)} - {None}
        return len(keys) < 2

    def allow_migrate(
        self, db: str, app_label: str, model_name: str | None = None, **hints: Any
    ) -> bool:
        """Say whether a table belongs in a database. Never None: Django takes that for yes."""
        model = hints.get("model")
        where = place(model) if model else migrating.place_by_name(app_label, model_name)
        return db in aliases_at(where)


def _key(instance: ShardedModel) -> Any:
    # As given to its constructor, the key of one may be text, that of the other a UUID.
    field: Any = instance._meta.get_field(instance.shard_key)
    return field.to_python(instance.shard_key_value)


def _shard(model: type[models.Model], instance: models.Model | None) -> str:
    if isinstance(instance, ShardedModel) and (key := instance.shard_key_value) is not None:
        return slot_cache.get_shard_for_user_id(key)
    if instance is not None and place(type(instance)) == place(model) and instance._state.db:
        return instance._state.db
    if alias := current_shard():
        return alias
    raise ShardKeyRequired(
        f"This query on {model._meta.label} does not say whose rows it wants, so it would have to "
        f"guess a shard. Add `.using(get_shard_for_user_id(user_id))`, or write it inside "
        f"`with use_shard(alias):`. In a migration the alias is schema_editor.connection.alias."
    )
