"""Accounts in the admin. The profile follows by itself: User.save makes it, a signal deletes it."""

from collections.abc import Iterable
from typing import Any

from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin as DjangoGroupAdmin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group
from django.http import HttpRequest
from unfold.admin import ModelAdmin
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from sharding.admin import BoundedModelAdmin, OutageModelAdmin, add_deleted, deleted_rows
from users.admin.links import UserPagesAdmin, register_page
from users.models import Profile, User

__all__ = ["GroupAdmin", "UserAdmin"]

_RIGHTS = ("is_staff", "is_superuser", "groups", "user_permissions")

register_page(User, "Account")
admin.site.unregister(Group)


@admin.register(Group)
class GroupAdmin(DjangoGroupAdmin, ModelAdmin):
    """Django's own pages for groups."""


@admin.register(User)
class UserAdmin(BoundedModelAdmin, OutageModelAdmin, UserPagesAdmin, DjangoUserAdmin, ModelAdmin):
    """Django's own pages and forms for users, with the fields of ours.

    As in the API, only superusers change members of the staff, or make any: with Django's own,
    whoever may change users can make themself a superuser.
    """

    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm
    list_display = ("email", "name", "is_active", "is_staff", "date_joined")
    list_filter = ("is_active", "is_staff", "is_superuser", "date_joined", "groups")
    search_fields = ("email", "name")
    search_help_text = "Email or name"
    ordering = ("email",)
    readonly_fields = ("id", "last_login", "updated_at")
    fieldsets = (
        (None, {"fields": ("id", "email", "name", "password")}),
        (
            "Permissions",
            {"fields": ("is_active", "is_staff", "is_superuser", "groups", "user_permissions")},
        ),
        ("Dates", {"fields": ("date_joined", "last_login", "updated_at")}),
    )
    add_fieldsets = (
        (
            None,
            {
                "classes": ("wide",),
                "fields": ("email", "name", "usable_password", "password1", "password2"),
            },
        ),
    )

    def get_deleted_objects(self, objs: Iterable[User], request: HttpRequest) -> Any:
        """Return what goes with the accounts: on the primary, and on the shards."""
        accounts = list(objs)
        owned = Profile.objects.filter(pk__in=[account.pk for account in accounts])
        return add_deleted(
            super().get_deleted_objects(accounts, request),
            deleted_rows(owned, request, self.admin_site),
        )

    def has_change_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        return super().has_change_permission(request, obj) and _may_change(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        return super().has_delete_permission(request, obj) and _may_change(request, obj)

    def get_readonly_fields(self, request: HttpRequest, obj: User | None = None) -> Any:
        fields = super().get_readonly_fields(request, obj)
        return fields if _is_superuser(request) else (*fields, *_RIGHTS)


def _may_change(request: HttpRequest, obj: User | None) -> bool:
    if obj is None or _is_superuser(request):
        return True
    return not (obj.is_staff or obj.is_superuser)


def _is_superuser(request: HttpRequest) -> bool:
    return bool(getattr(request.user, "is_superuser", False))
