"""What the sync wrote, to look at in the admin: a change would last until the next sync."""

from django.contrib import admin
from django.db import models
from django.http import HttpRequest

from analytics.models import SyncRun, UserAnalytics

__all__ = ["ReadOnlyAdmin", "SyncRunAdmin", "UserAnalyticsAdmin"]


class ReadOnlyAdmin(admin.ModelAdmin):
    """Pages that show and change nothing, to anybody."""

    show_full_result_count = False  # counts the whole table for each search

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        return False


@admin.register(UserAnalytics)
class UserAnalyticsAdmin(ReadOnlyAdmin):
    list_display = (
        "email",
        "name",
        "is_active",
        "is_staff",
        "date_joined",
        "last_login",
        "synced_at",
    )
    list_filter = ("is_active", "is_staff")
    search_fields = ("email", "name")
    date_hierarchy = "date_joined"
    ordering = ("email",)


@admin.register(SyncRun)
class SyncRunAdmin(ReadOnlyAdmin):
    list_display = (
        "started_at",
        "mode",
        "finished_at",
        "upserted",
        "deleted",
        "unchanged",
        "error",
    )
    list_filter = ("mode",)
    search_fields = ("error",)
    date_hierarchy = "started_at"
