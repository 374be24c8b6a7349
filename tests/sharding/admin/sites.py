"""Two admin sites with the same options: over the shards, and over one database."""

from typing import Any

from django.contrib import admin
from django.urls import include, path
from unfold.admin import ModelAdmin, TabularInline
from unfold.forms import PaginationInlineFormSet
from unfold.sites import UnfoldAdminSite

from config.admin import Site
from sharding.admin import ShardedInlineFormSet, ShardedModelAdmin
from tests.sharding.admin.plain.models import PlainActivity, PlainProfile
from users.models import Activity, Profile


class FormSet(ShardedInlineFormSet, PaginationInlineFormSet):
    pass


class InlineOptions(TabularInline):
    fields = ("kind", "amount", "occurred_at")
    ordering = ("occurred_at", "pk")
    formset = FormSet
    per_page = 3
    extra = 1


class ActivityInline(InlineOptions):
    model = Activity


class PlainActivityInline(InlineOptions):
    model = PlainActivity


@admin.action(permissions=["change"])
def promote(model_admin: Any, request: Any, queryset: Any) -> None:
    model_admin.message_user(request, f"{queryset.update(plan='pro')} promoted")


class ProfileOptions(admin.ModelAdmin):
    list_display = ("__str__", "display_name", "country", "plan", "bio", "created_at", "updated_at")
    list_filter = ("plan", "created_at", ("country", admin.EmptyFieldListFilter))
    list_per_page = 20
    show_full_result_count = False
    search_fields = ("display_name", "bio", "=country", "^plan", "user_id__exact")
    date_hierarchy = "created_at"
    actions = (promote,)
    show_facets = admin.ShowFacets.NEVER


class ActivityOptions(admin.ModelAdmin):
    list_display = ("kind", "amount", "profile", "occurred_at")
    list_filter = ("profile__plan", "occurred_at")
    list_per_page = 30
    show_full_result_count = False
    search_fields = ("kind", "profile__display_name")
    date_hierarchy = "occurred_at"
    ordering = ("-amount",)
    autocomplete_fields = ("profile",)
    show_facets = admin.ShowFacets.NEVER


class ProfileAdmin(ProfileOptions, ShardedModelAdmin, ModelAdmin):
    inlines = (ActivityInline,)


class ActivityAdmin(ActivityOptions, ShardedModelAdmin, ModelAdmin):
    pass


class KeyOnceAdded(ModelAdmin):
    """What the sharded admin does with the key."""

    key = ""

    def get_readonly_fields(self, request: Any, obj: Any = None) -> Any:
        return (self.key,) if obj else ()


class PlainProfileAdmin(ProfileOptions, KeyOnceAdded):
    key = "user_id"
    inlines = (PlainActivityInline,)


class PlainActivityAdmin(ActivityOptions, KeyOnceAdded):
    key = "profile"


sharded, plain = Site("sharded"), UnfoldAdminSite("plain")
sharded.register(Profile, ProfileAdmin)
sharded.register(Activity, ActivityAdmin)
plain.register(PlainProfile, PlainProfileAdmin)
plain.register(PlainActivity, PlainActivityAdmin)

urlpatterns = [
    path("", include("config.urls")),
    path("sharded/", sharded.urls),
    path("plain/", plain.urls),
]
