"""The logs of changed accounts, on the primary, and of changed profiles, on each shard."""

from sharding.change_log import Change
from sharding.models import LocalManager

__all__ = ["ProfileChange", "UserChange"]


class UserChange(Change):
    """An account was stored, changed or deleted."""


class ProfileChange(Change):
    """A profile of this shard was stored, changed or deleted."""

    objects = LocalManager(primary=False)

    class Meta:
        base_manager_name = "objects"
