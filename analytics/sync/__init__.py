"""Keeping the copies in analytics equal to the primary's accounts and the shards' profiles.

Plain functions; the command `sync_analytics` is a shell around them. `turn` says what makes a batch
safe, `full` how everything is compared and repaired.
"""

from analytics.sync.described import Source, sources
from analytics.sync.errors import Overtaken, ReconcileNeeded, SyncFailed
from analytics.sync.follow import Stop, follow
from analytics.sync.record import Run, recorded
from analytics.sync.result import Progress, SyncResult
from analytics.sync.run import (
    BATCH,
    plan,
    sources_of,
    sync_key,
    sync_source,
    sync_user,
    verify,
)
from analytics.sync.status import SourceStatus, lag, last_runs, measure, status

__all__ = [
    "BATCH",
    "Overtaken",
    "Progress",
    "ReconcileNeeded",
    "Run",
    "Source",
    "SourceStatus",
    "Stop",
    "SyncFailed",
    "SyncResult",
    "follow",
    "lag",
    "last_runs",
    "measure",
    "plan",
    "recorded",
    "sources",
    "sources_of",
    "status",
    "sync_key",
    "sync_source",
    "sync_user",
    "verify",
]
