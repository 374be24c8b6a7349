"""Accounts, profiles and activities in the admin."""

from users.admin.accounts import GroupAdmin, UserAdmin
from users.admin.links import UserPagesAdmin, register_page
from users.admin.owned import ActivityAdmin, CountryFilter, PlanFilter, ProfileAdmin
from users.admin.tokens import TokenAdmin

__all__ = [
    "ActivityAdmin",
    "CountryFilter",
    "GroupAdmin",
    "PlanFilter",
    "ProfileAdmin",
    "TokenAdmin",
    "UserAdmin",
    "UserPagesAdmin",
    "register_page",
]
