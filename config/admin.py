"""The admin site: Unfold's theme, over many databases, and no more tries to log in than the API."""

import math
from typing import Any

from django.http import HttpRequest
from unfold.sites import UnfoldAdminSite

from config.problems import answer
from sharding.admin import ShardedAdminSite
from users.api.logins import LoginThrottle

__all__ = ["Site"]


class Site(ShardedAdminSite, UnfoldAdminSite):
    """Where every app's admin is registered."""

    index_title = "Dashboard"

    def login(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        throttle: Any = LoginThrottle()
        if request.method == "POST" and not throttle.allow_request(request, None):
            response = answer(request, 429, "Too many attempts to log in.")
            response["Retry-After"] = str(math.ceil(throttle.wait() or 1))
            return response
        return super().login(request, extra_context)
