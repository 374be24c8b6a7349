"""What the analytics database holds: copies for reports, and the record of the syncs."""

from analytics.models.copies import UserAnalytics
from analytics.models.runs import SyncRun

__all__ = ["SyncRun", "UserAnalytics"]
