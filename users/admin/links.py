"""From any page about a user to the others: the account, the profile, and what others add."""

from typing import Any
from uuid import UUID

from django.contrib import admin
from django.contrib.admin.sites import AdminSite
from django.db import models
from django.http import HttpRequest
from django.urls import reverse

__all__ = ["UserPagesAdmin", "register_page"]

_models: dict[type[models.Model], str] = {}


def register_page(model: type[models.Model], title: str) -> None:
    """Link to the page of a model whose primary key is the user's id."""
    _models[model] = title


class UserPagesAdmin(admin.ModelAdmin):
    """Shows above a row the links to the other pages about its user."""

    change_form_before_template = "users/pages_of_user.html"

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> Any:
        original = context.get("original")
        if original is not None:
            pages = _pages(self.admin_site, request, self.user_id(original))
            context["pages_of_user"] = [page for page in pages if page["model"] != self.model]
        return super().render_change_form(request, context, *args, **kwargs)

    def user_id(self, obj: Any) -> UUID:
        """Return the id of the user whom a row is about."""
        return obj.pk


def _pages(site: AdminSite, request: HttpRequest, user_id: UUID) -> list[dict[str, Any]]:
    return [
        {"model": model, "title": title, "url": _url(site, model, user_id)}
        for model, title in _models.items()
        if site.get_model_admin(model).has_view_permission(request)
    ]


def _url(site: AdminSite, model: type[models.Model], user_id: UUID) -> str:
    name = f"{model._meta.app_label}_{model._meta.model_name}_change"
    return reverse(f"{site.name}:{name}", args=[user_id])
