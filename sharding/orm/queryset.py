"""The queryset and manager of sharded models."""

from typing import TYPE_CHECKING, Self, TypeVar

from django.db import models

if TYPE_CHECKING:
    # The methods look as Django's own: mypy's plugin does not see through generic ones of ours.
    from django.db.models import QuerySet as Dispatch
else:
    from sharding.orm.dispatch import Dispatch

__all__ = ["ShardedManager", "ShardedQuerySet"]

_Model = TypeVar("_Model", bound=models.Model, covariant=True)


class ShardedQuerySet(Dispatch[_Model]):
    """A QuerySet whose rows live on shards.

    With its shard known it is Django's own; over several shards it answers as one database would,
    or raises AcrossShardsRefused with what to write instead.
    """

    # The shards that could not be reached when a partial queryset was last evaluated.
    missing_shards: frozenset[str]

    def across_shards(self, *, partial: bool = False) -> Self:
        """Allow the query to ask every shard.

        With `partial`, a shard that cannot be reached is left out and named in `missing_shards`
        of the evaluated queryset; without, it raises DatabaseUnavailable.
        """
        clone = self._chain()
        clone._across = "partial" if partial else "all"
        return clone

    @classmethod
    def as_manager(cls) -> "ShardedManager":
        """Return a manager with this class's methods, as Django's does."""
        manager = ShardedManager.from_queryset(cls)()
        manager._built_with_as_manager = True
        return manager


# On a line of its own, because mypy's plugin looks for that.
_Manager = models.Manager.from_queryset(ShardedQuerySet)


class ShardedManager(_Manager[_Model]):
    """The manager that makes a model a sharded one, in migrations too (see sharding.router)."""

    use_in_migrations = True
