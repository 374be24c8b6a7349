"""Accounts on the primary, and what users own on the shards."""

from users.models.account import User
from users.models.changes import ProfileChange, UserChange
from users.models.owned import Activity, Profile

__all__ = ["Activity", "Profile", "ProfileChange", "User", "UserChange"]
