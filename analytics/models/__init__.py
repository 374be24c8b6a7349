"""What the analytics database holds: copies for reports, and how far the sync is.

SyncPosition alone stands beside the sources: on the primary and on every shard.
"""

from analytics.models.copies import ProfileAnalytics, UserAnalytics
from analytics.models.positions import SyncCheckpoint, SyncPosition
from analytics.models.runs import SyncRun

__all__ = ["ProfileAnalytics", "SyncCheckpoint", "SyncPosition", "SyncRun", "UserAnalytics"]
