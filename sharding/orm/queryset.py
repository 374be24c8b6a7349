"""The queryset and manager of sharded models."""

from typing import TypeVar

from django.db import models

__all__ = ["ShardedManager", "ShardedQuerySet"]

_Model = TypeVar("_Model", bound=models.Model, covariant=True)


class ShardedQuerySet(models.QuerySet[_Model]):
    """A QuerySet whose rows live on shards; the router decides on which."""


class ShardedManager(models.Manager.from_queryset(ShardedQuerySet)[_Model]):  # type: ignore[misc]
    """The manager that makes a model a sharded one, in migrations too (see sharding.router)."""

    use_in_migrations = True
