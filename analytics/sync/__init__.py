"""Keeping the copies in analytics equal to the primary's accounts and the shards' profiles.

Plain functions; the command `sync_analytics` is a shell around them. `turn` says what makes a batch
safe, `full` how everything is compared and repaired.
"""

from analytics.sync.described import Source, sources
from analytics.sync.errors import Overtaken, ReconcileNeeded, SyncFailed
from analytics.sync.follow import follow
from analytics.sync.record import recorded
from analytics.sync.result import SyncResult
from analytics.sync.run import BATCH, Progress, sync_log_once, sync_source, sync_user, verify
from analytics.sync.status import lag, last_runs, measure, status

__all__ = [
    "BATCH",
    "Overtaken",
    "Progress",
    "ReconcileNeeded",
    "Source",
    "SyncFailed",
    "SyncResult",
    "follow",
    "lag",
    "last_runs",
    "measure",
    "recorded",
    "sources",
    "status",
    "sync_log_once",
    "sync_source",
    "sync_user",
    "verify",
]
