"""The admin's index: the state of every database, of the sync, and who the users are."""

from analytics.dashboard.context import dashboard

__all__ = ["dashboard"]
