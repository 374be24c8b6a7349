"""Keeping the copies in analytics equal to the primary's accounts and the shards' profiles.

Plain functions; the command `sync_analytics` is a shell around them. `turn` says what makes a batch
safe, `full` how everything is compared and repaired.
"""

from analytics.sync.described import Source, sources
from analytics.sync.errors import Overtaken, ReconcileNeeded, SyncFailed
from analytics.sync.result import SyncResult
from analytics.sync.run import BATCH, sync_log_once, sync_source, sync_user, verify

__all__ = [
    "BATCH",
    "Overtaken",
    "ReconcileNeeded",
    "Source",
    "SyncFailed",
    "SyncResult",
    "sources",
    "sync_log_once",
    "sync_source",
    "sync_user",
    "verify",
]
