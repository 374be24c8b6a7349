"""What can go wrong between many databases. Each message states the facts and what to do next."""

from django.db import NotSupportedError, OperationalError

__all__ = [
    "AcrossShardsRefused",
    "DatabaseUnavailable",
    "InvalidShardKey",
    "InvalidSlotMap",
    "OutsideAnalytics",
    "ShardKeyChanged",
    "ShardKeyRequired",
    "ShardingError",
    "WrongShard",
]


class ShardingError(Exception):
    """Base of this app's errors."""


class InvalidShardKey(ShardingError, ValueError):
    """A value that is no UUID was used as the key that decides the shard."""


class InvalidSlotMap(ShardingError, ValueError):
    """A slot map that leaves a slot without an owner, or gives it two, or to a database unknown."""


class ShardKeyRequired(ShardingError):
    """A query on a sharded model says neither whose rows it wants nor on which shard."""


class AcrossShardsRefused(ShardingError, NotSupportedError):
    """A query that several shards cannot answer as one database would."""


class ShardKeyChanged(ShardingError):
    """A stored row's key was changed: saving it would leave a second row on another shard."""


class WrongShard(ShardingError):
    """A row was sent to a shard that does not own its key: no keyed query would find it there."""


class OutsideAnalytics(ShardingError):
    """A request for reports asked another database than analytics."""


class DatabaseUnavailable(OperationalError):
    """A database cannot be reached, or the connection to it was lost; `alias` says which."""

    def __init__(self, message: str, *, alias: str) -> None:
        super().__init__(message)
        self.alias = alias

    def __reduce__(self) -> tuple[object, ...]:
        # A test worker sends its errors home pickled; the default would lose the keyword.
        return _unavailable, (str(self), self.alias)


def _unavailable(message: str, alias: str) -> DatabaseUnavailable:
    return DatabaseUnavailable(message, alias=alias)
