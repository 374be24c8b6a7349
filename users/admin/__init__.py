"""Accounts, profiles and activities in the admin."""

from users.admin.accounts import GroupAdmin, UserAdmin
from users.admin.links import UserPagesAdmin, register_page
from users.admin.owned import ActivityAdmin, CountryFilter, PlanFilter, ProfileAdmin

__all__ = [
    "ActivityAdmin",
    "CountryFilter",
    "GroupAdmin",
    "PlanFilter",
    "ProfileAdmin",
    "UserAdmin",
    "UserPagesAdmin",
    "register_page",
]
