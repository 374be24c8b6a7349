"""Sharded models in Django's admin, as if they lived in one database. Knows no theme.

Combine it with a theme's classes: `class ProfileAdmin(ShardedModelAdmin, unfold.admin.ModelAdmin)`.
"""

from sharding.admin.changelist import BoundedModelAdmin, BoundedPaginator
from sharding.admin.filters import ShardFilter
from sharding.admin.inlines import ShardedInlineFormSet
from sharding.admin.model_admin import ShardedModelAdmin
from sharding.admin.outage import OutageModelAdmin
from sharding.admin.previews import add_deleted, deleted_rows
from sharding.admin.site import ShardedAdminSite

__all__ = [
    "BoundedModelAdmin",
    "BoundedPaginator",
    "OutageModelAdmin",
    "ShardFilter",
    "ShardedAdminSite",
    "ShardedInlineFormSet",
    "ShardedModelAdmin",
    "add_deleted",
    "deleted_rows",
]
