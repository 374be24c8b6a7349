"""The admin site: a page that needs a database that is down says so, whichever page it is."""

import json
import logging
from collections.abc import Callable
from functools import wraps
from typing import Any

from django.contrib.admin import AdminSite
from django.contrib.admin.views.autocomplete import AutocompleteJsonView
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.utils.decorators import method_decorator
from django.views.decorators.cache import never_cache

from sharding import conf
from sharding.admin.outage import RETRY_AFTER
from sharding.errors import DatabaseUnavailable
from sharding.models import ShardedQuerySet

__all__ = ["ShardedAdminSite"]

logger = logging.getLogger(__name__)

View = Callable[..., Any]


class ShardedAdminSite(AdminSite):
    """Answers 503, in the admin's look as long as there is a primary, and names the database."""

    def admin_view(self, view: View, cacheable: bool = False) -> Any:
        return self._naming_outages(super().admin_view(view, cacheable))

    @method_decorator(never_cache)
    def login(self, request: HttpRequest, extra_context: Any = None) -> Any:
        return self._naming_outages(super().login)(request, extra_context)

    def autocomplete_view(self, request: HttpRequest) -> Any:
        return PartialAutocompleteView.as_view(admin_site=self)(request)

    def _naming_outages(self, view: View) -> View:
        @wraps(view)
        def named(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            try:
                response = view(request, *args, **kwargs)
                # Now, not later: templates ask databases too.
                return response.render() if hasattr(response, "render") else response
            except DatabaseUnavailable as error:
                logger.error("%s %s: %s", request.method, request.path, error)
                return self._outage(request, error.alias)

        return named

    def _outage(self, request: HttpRequest, alias: str) -> HttpResponse:
        context: dict[str, Any] = {"database": conf.label(alias), "title": "Not now"}
        template = "sharding/no_primary.html"
        if alias != conf.primary():
            template = "sharding/outage.html"
            context = {**self.each_context(request), **context, "sent": _sent(request)}
        response = render(request, template, context, status=503)
        response["Retry-After"] = RETRY_AFTER
        return response


def _sent(request: HttpRequest) -> list[tuple[str, str]]:
    """Return the fields of a form that was sent, to send them again; but no passwords."""
    return [
        (name, value)
        for name, values in request.POST.lists()
        if "password" not in name and name != "csrfmiddlewaretoken"
        for value in values
    ]


class PartialAutocompleteView(AutocompleteJsonView):
    """Offers the rows of the shards that answer, and says which do not."""

    def get_queryset(self) -> Any:
        queryset = super().get_queryset()
        if not isinstance(queryset, ShardedQuerySet):
            return queryset
        found = queryset.across_shards(partial=True)
        return found if found.ordered else found.order_by("pk")

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        context = super().get_context_data(**kwargs)
        self.rows = context["object_list"]
        return context

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        response = super().get(request, *args, **kwargs)
        missing = sorted(getattr(self.rows, "missing_shards", ()))
        if not missing:
            return response
        found = json.loads(response.content)
        for alias in missing:
            text = f"{alias} cannot be reached: its rows are missing here."
            found["results"].append({"id": "", "text": text, "disabled": True})
        return JsonResponse(found)
