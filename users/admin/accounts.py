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

register_page(User, "Account")
admin.site.unregister(Group)


@admin.register(Group)
class GroupAdmin(DjangoGroupAdmin, ModelAdmin):
    """Django's own pages for groups."""


@admin.register(User)
class UserAdmin(BoundedModelAdmin, OutageModelAdmin, UserPagesAdmin, DjangoUserAdmin, ModelAdmin):
    """Django's own pages and forms for users, with the fields of ours."""

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
