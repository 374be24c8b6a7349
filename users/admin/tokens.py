"""The API's tokens in the admin: to be seen, and ended. Nobody makes one for somebody else."""

import knox.admin  # noqa: F401  registers its own page, which lets staff make tokens of anybody
from django.contrib import admin
from django.http import HttpRequest
from knox.models import AuthToken
from unfold.admin import ModelAdmin

__all__ = ["TokenAdmin"]

admin.site.unregister(AuthToken)


@admin.register(AuthToken)
class TokenAdmin(ModelAdmin):
    """Tokens by user; deleting one logs it out."""

    list_display = ("user", "created", "expiry")
    search_fields = ("user__email",)
    fields = ("user", "created", "expiry")
    ordering = ("-created",)
    show_full_result_count = False

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: AuthToken | None = None) -> bool:
        return False
