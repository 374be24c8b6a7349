"""What users own, in the admin: profiles and activities, of all shards."""

from typing import Any, cast
from uuid import UUID

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.admin.options import IncorrectLookupParameters
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils import timezone
from django_countries import countries
from unfold.admin import ModelAdmin, TabularInline
from unfold.contrib.filters.admin import ChoicesDropdownFilter, DropdownFilter
from unfold.forms import PaginationInlineFormSet

from sharding.admin import ShardedInlineFormSet, ShardedModelAdmin, ShardFilter
from users.admin.links import UserPagesAdmin, register_page
from users.models import Activity, Profile, User

__all__ = ["ActivityAdmin", "CountryFilter", "PlanFilter", "ProfileAdmin"]

register_page(Profile, "Profile")

_FOUND_BY_EMAIL = 100
_NO_COUNTRY = "-"


class CountryFilter(DropdownFilter):
    """One country, or none given. The choices are fixed: to look for them would ask every shard."""

    title = "country"
    parameter_name = "country"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        named = [(code, f"{name} ({code})") for code, name in countries]
        return [(_NO_COUNTRY, "(not given)"), *named]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        value = self.value()
        if not value:
            return queryset
        return queryset.filter(country="" if value == _NO_COUNTRY else value)


class PlanFilter(admin.SimpleListFilter):
    """One plan."""

    title = "plan"
    parameter_name = "plan"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(str(value), str(label)) for value, label in Profile.Plan.choices]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        value = self.value()
        if value is not None and value not in Profile.Plan.values:
            raise IncorrectLookupParameters(f"{value!r} is no plan.")
        return queryset.filter(plan=value) if value else queryset


class ProfileForm(forms.ModelForm):
    """Refuses a profile of nobody: an account has its own, and no other row may take its id."""

    def clean_user_id(self) -> UUID:
        user_id: UUID = self.cleaned_data["user_id"]
        if not User.objects.filter(pk=user_id).exists():
            raise forms.ValidationError("There is no account with this id.")
        return user_id


class ActivityFormSet(ShardedInlineFormSet, PaginationInlineFormSet):
    """A page of a profile's activities."""


class ActivityInline(TabularInline):
    """The activities of a profile, ten at a time: there may be thousands."""

    model = Activity
    formset = ActivityFormSet
    fields = ("occurred_at", "kind", "amount")
    ordering = ("-occurred_at", "pk")
    per_page = 10
    extra = 0
    show_change_link = True


def _move_to_plan(
    model_admin: "ProfileAdmin", request: HttpRequest, queryset: Any, plan: Profile.Plan
) -> None:
    """Change the plan of the profiles that were chosen, on all their shards."""
    chosen = list(queryset)
    queryset.update(plan=plan, updated_at=timezone.now())
    LogEntry.objects.log_actions(
        user_id=cast(User, request.user).pk,
        queryset=chosen,
        action_flag=CHANGE,
        change_message=[{"changed": {"fields": ["Plan"]}}],
    )
    text = f"{len(chosen)} profiles are on the plan {plan.label} now."
    model_admin.message_user(request, text, messages.SUCCESS)


def _moving_to(plan: Profile.Plan) -> Any:
    def move(model_admin: "ProfileAdmin", request: HttpRequest, queryset: Any) -> None:
        _move_to_plan(model_admin, request, queryset, plan)

    move.__name__ = f"move_to_{plan.value}"
    return admin.action(move, permissions=["change"], description=f"Move to the plan {plan.label}")


@admin.register(Profile)
class ProfileAdmin(ShardedModelAdmin, UserPagesAdmin, ModelAdmin):
    """The profiles of all shards."""

    form = ProfileForm
    list_display = ("name", "country", "plan", "created_at", "shard")
    list_filter = (CountryFilter, PlanFilter, ShardFilter)
    search_fields = ("display_name",)
    search_help_text = "Name, email or id"
    list_per_page = 50
    date_hierarchy = "created_at"
    ordering = ("-created_at",)
    readonly_fields = ("updated_at",)
    actions = tuple(map(_moving_to, Profile.Plan))
    inlines = (ActivityInline,)
    fieldsets = (
        (None, {"fields": ("user_id", "display_name", "country", "plan", "bio")}),
        ("More", {"fields": ("settings", "created_at", "updated_at")}),
    )

    @admin.display(description="profile", ordering="display_name")
    def name(self, obj: Profile) -> str:
        """A column for lists: the name, or the id where there is none."""
        return str(obj)

    def get_search_results(
        self, request: HttpRequest, queryset: Any, search_term: str
    ) -> tuple[Any, bool]:
        """Search names on every shard; ids, and emails known to the primary, on their own."""
        term = search_term.strip()
        if user_id := _uuid(term):
            return queryset.filter(pk=user_id), False
        if "@" in term:
            found = User.objects.filter(email__startswith=term.lower())
            ids = list(found.values_list("pk", flat=True)[:_FOUND_BY_EMAIL])
            return queryset.filter(pk__in=ids), False
        return super().get_search_results(request, queryset, search_term)

    def _get_obj_does_not_exist_redirect(
        self, request: HttpRequest, opts: Any, object_id: str
    ) -> HttpResponse:
        """Offer an account that has no profile a new one."""
        user_id = _uuid(object_id)
        account = User.objects.filter(pk=user_id).first() if user_id else None
        if account is None or not self.has_add_permission(request):
            return super()._get_obj_does_not_exist_redirect(request, opts, object_id)
        self.message_user(request, f"{account} has no profile. Add it here.", messages.WARNING)
        url = reverse(f"{self.admin_site.name}:users_profile_add", query={"user_id": user_id})
        return HttpResponseRedirect(url)


@admin.register(Activity)
class ActivityAdmin(ShardedModelAdmin, UserPagesAdmin, ModelAdmin):
    """The activities of all shards."""

    list_display = ("occurred_at", "kind", "amount", "profile", "shard")
    list_filter = (("profile__plan", ChoicesDropdownFilter), ShardFilter)
    list_select_related = ("profile",)
    search_fields = ("kind",)
    search_help_text = "Kind, or the id of an activity or of its user"
    list_per_page = 50
    date_hierarchy = "occurred_at"
    ordering = ("-occurred_at",)
    autocomplete_fields = ("profile",)

    def user_id(self, obj: Activity) -> UUID:
        return obj.profile_id

    def get_search_results(
        self, request: HttpRequest, queryset: Any, search_term: str
    ) -> tuple[Any, bool]:
        if key := _uuid(search_term.strip()):
            return queryset.filter(pk=key) | queryset.filter(profile=key), False
        return super().get_search_results(request, queryset, search_term)


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
