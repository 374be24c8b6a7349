"""What the analytics database holds: copies for reports, and how far the sync is.

SyncPosition and SyncArrival alone stand beside the sources: on the primary and on the shards.
"""

from analytics.models.copies import ProfileAnalytics, UserAnalytics
from analytics.models.positions import SyncArrival, SyncCheckpoint, SyncPosition
from analytics.models.runs import SyncRun

__all__ = [
    "ProfileAnalytics",
    "SyncArrival",
    "SyncCheckpoint",
    "SyncPosition",
    "SyncRun",
    "UserAnalytics",
]
