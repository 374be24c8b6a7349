"""Which databases can be used at this moment."""

from collections.abc import Collection

from django.db import OperationalError, connections

from sharding.errors import ShardingError
from sharding.orm.scatter import scatter

__all__ = ["unreachable"]


def unreachable(aliases: Collection[str] = ()) -> frozenset[str]:
    """Return those of the aliases, all unless given, to which this process can send nothing.

    All are asked at once.
    """
    asked = tuple(aliases or connections)
    try:
        _, missing = scatter(dict.fromkeys(asked, ("SELECT 1", None)), partial=True)
    except (OperationalError, ShardingError):
        # One answers, but not as it should: a server without memory, or another shard's.
        if len(asked) == 1:
            return frozenset(asked)
        return frozenset().union(*(unreachable([alias]) for alias in asked))
    return missing
