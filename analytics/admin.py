"""What the sync wrote, to look at in the admin: a change would last until the next sync."""

from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db import models
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.urls import path, reverse
from unfold.admin import ModelAdmin

from analytics.dashboard.context import SYNC_PERMISSION
from analytics.models import ProfileAnalytics, SyncRun, UserAnalytics
from analytics.sync.now import Outcome, sync_now
from sharding.admin import BoundedModelAdmin, ShardFilter
from users.admin import CountryFilter, PlanFilter, UserPagesAdmin, register_page

__all__ = ["ProfileAnalyticsAdmin", "ReadOnlyAdmin", "SyncRunAdmin", "UserAnalyticsAdmin"]

register_page(UserAnalytics, "Account in analytics")
register_page(ProfileAnalytics, "Profile in analytics")

_WAIT = 3.0  # seconds


class ReadOnlyAdmin(BoundedModelAdmin, ModelAdmin):
    """Pages that show and change nothing, to anybody."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        return False


@admin.register(UserAnalytics)
class UserAnalyticsAdmin(UserPagesAdmin, ReadOnlyAdmin):
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
    ordering = ("-date_joined",)


class CopiedFromFilter(ShardFilter):
    """The shard that a copy came from: a column here."""

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        return queryset.filter(shard=self.value()) if self.value() else queryset


@admin.register(ProfileAnalytics)
class ProfileAnalyticsAdmin(UserPagesAdmin, ReadOnlyAdmin):
    list_display = ("user_id", "shard", "country", "plan", "created_at", "synced_at")
    list_filter = (CountryFilter, PlanFilter, CopiedFromFilter)
    ordering = ("pk",)


@admin.register(SyncRun)
class SyncRunAdmin(ReadOnlyAdmin):
    list_display = (
        "started_at",
        "mode",
        "source",
        "finished_at",
        "upserted",
        "deleted",
        "unchanged",
        "lag",
        "error",
    )
    list_filter = ("mode",)
    search_fields = ("error",)
    date_hierarchy = "started_at"

    def get_urls(self) -> Any:
        view = self.admin_site.admin_view(self.sync_now)
        return [path("now/", view, name="analytics_syncrun_now"), *super().get_urls()]

    def sync_now(self, request: HttpRequest) -> HttpResponse:
        """Sync once, and say on the index what came of it."""
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        if not request.user.has_perm(SYNC_PERMISSION):
            raise PermissionDenied
        level, text = _said(sync_now(wait=_WAIT))
        self.message_user(request, text, level)
        return HttpResponseRedirect(reverse(f"{self.admin_site.name}:index"))


def _said(outcome: Outcome) -> tuple[int, str]:
    if not outcome.finished.is_set():
        return messages.INFO, "The sync goes on: its runs appear below when they end."
    if outcome.running_already:
        return messages.INFO, "Another sync is running, so this one had nothing to do."
    result = outcome.result
    done = f"{result.upserted} rows copied, {result.deleted} deleted"
    if outcome.failed:
        names = ", ".join(outcome.failed)
        return messages.WARNING, f"{done}. Not synced: {names}. Try again when they are back."
    return messages.SUCCESS, f"Synced: {done}."
