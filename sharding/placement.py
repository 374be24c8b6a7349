"""Where a model's rows live: the primary, the database of its app, or the shards."""

from collections.abc import Iterable

from django.db import models

from sharding import conf
from sharding.models.local import LocalManager
from sharding.orm.queryset import ShardedManager

__all__ = ["PRIMARY_AND_SHARDS", "SHARDS", "aliases_at", "place", "place_by_managers"]

# Places that are no alias: of several databases, a key or the caller says which.
SHARDS = "shards"
PRIMARY_AND_SHARDS = "primary and shards"


def place(model: type[models.Model]) -> str:
    """Return the alias of a model's database, SHARDS, or PRIMARY_AND_SHARDS."""
    # What the database cache shows its router is only like a model, and has no managers.
    managers = getattr(model._meta, "managers", ())
    return place_by_managers(model._meta.app_label, managers)


def place_by_managers(app_label: str, managers: Iterable[models.Manager]) -> str:
    """The same for a model of which only the app and the managers are known.

    By its managers, not its base classes: models in migrations have lost those.
    """
    for manager in managers:
        if isinstance(manager, LocalManager):
            return PRIMARY_AND_SHARDS if manager.primary else SHARDS
    if alias := conf.app_databases().get(app_label):
        return alias
    sharded = any(isinstance(manager, ShardedManager) for manager in managers)
    return SHARDS if sharded else conf.primary()


def aliases_at(where: str) -> tuple[str, ...]:
    """Return the databases that have the tables of a place."""
    if where == SHARDS:
        return conf.shards()
    if where == PRIMARY_AND_SHARDS:
        return conf.primary(), *conf.shards()
    return (where,)
