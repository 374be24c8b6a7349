"""The logs of changed accounts, on the primary, and of changed profiles, on each shard."""

from sharding.change_log import Change, ShardChange

__all__ = ["ProfileChange", "UserChange"]


class UserChange(Change):
    """An account was stored, changed or deleted."""


class ProfileChange(ShardChange):
    """A profile of this shard was stored, changed or deleted."""
