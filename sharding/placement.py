"""Where a model's rows live: the primary, the database of its app, or the shards."""

from django.db import models

from sharding import conf
from sharding.orm.queryset import ShardedManager

__all__ = ["SHARDS", "is_sharded", "place", "place_of_app"]

SHARDS = "shards"  # no alias: the key decides which of them


def place(model: type[models.Model]) -> str:
    """Return the alias of a model's database, or SHARDS."""
    return place_of_app(model._meta.app_label) or (SHARDS if is_sharded(model) else conf.primary())


def place_of_app(app_label: str) -> str | None:
    """Return the alias of an app whose models all live in one database of their own."""
    return conf.app_databases().get(app_label)


def is_sharded(model: type[models.Model]) -> bool:
    """Say whether a model's rows live on shards.

    By its managers, not its base classes: models in migrations have lost those.
    """
    return any(isinstance(manager, ShardedManager) for manager in model._meta.managers)
