"""Copying accounts from the primary to analytics.

Plain functions; the command `sync_analytics` is a shell around them.
"""

from analytics.sync.errors import SyncAlreadyRunning, SyncFailed
from analytics.sync.full import sync_all
from analytics.sync.record import recorded
from analytics.sync.result import SyncResult
from analytics.sync.single import sync_one, sync_user

__all__ = [
    "SyncAlreadyRunning",
    "SyncFailed",
    "SyncResult",
    "recorded",
    "sync_all",
    "sync_one",
    "sync_user",
]
