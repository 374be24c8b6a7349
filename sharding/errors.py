"""What can go wrong between many databases. Each message states the facts and what to do next."""

from django.db import DatabaseError, NotSupportedError, OperationalError

__all__ = [
    "AcrossShardsRefused",
    "DatabaseUnavailable",
    "InvalidShardKey",
    "InvalidSlotMap",
    "MoveFailed",
    "MoveOvertaken",
    "MoveRefused",
    "OutsideAnalytics",
    "ShardKeyChanged",
    "ShardKeyRequired",
    "ShardingError",
    "SlotMoved",
    "WrongDatabase",
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


class SlotMoved(ShardingError, DatabaseError):
    """A shard refused a write to rows of a slot that it does not own, or not at this moment.

    Outside a transaction the ORM repeats the write on the owner; inside one it cannot, for what
    came before it is undone: run the transaction again, as sharding.atomic(user_id).run() does.
    """

    sqlstate = "SH001"  # of what the guard refuses

    def __init__(self, message: str, *, alias: str, slot: int | None) -> None:
        super().__init__(message)
        self.alias, self.slot = alias, slot

    def __reduce__(self) -> tuple[object, ...]:
        return _slot_moved, (str(self), self.alias, self.slot)


class WrongDatabase(ShardingError):
    """The server behind a shard's alias is another shard's, another installation's, or an old copy
    of it."""


class MoveRefused(ShardingError):
    """A move cannot begin; nothing was touched. The message says what to do first."""


class MoveFailed(ShardingError):
    """A move stopped on its way; the message says why, and how to go on or back."""


class MoveOvertaken(MoveFailed):
    """Another process went on with the same move; this one changed nothing more."""


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


def _slot_moved(message: str, alias: str, slot: int | None) -> SlotMoved:
    return SlotMoved(message, alias=alias, slot=slot)
