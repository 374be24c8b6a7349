"""The admin site: Unfold's theme, over many databases."""

from unfold.sites import UnfoldAdminSite

from sharding.admin import ShardedAdminSite

__all__ = ["Site"]


class Site(ShardedAdminSite, UnfoldAdminSite):
    """Where every app's admin is registered."""

    index_title = "Dashboard"
