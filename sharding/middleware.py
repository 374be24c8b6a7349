"""Which database a request works on."""

from collections.abc import Awaitable, Callable

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http import HttpRequest, HttpResponseBase

from sharding import conf

__all__ = ["DatabaseSelectionMiddleware", "get_request_database"]


class DatabaseSelectionMiddleware:
    """Sets `request.database`, the alias of the database that the request works on."""

    sync_capable = True
    async_capable = True

    def __init__(
        self, get_response: Callable[[HttpRequest], HttpResponseBase | Awaitable[HttpResponseBase]]
    ) -> None:
        self.get_response = get_response
        if iscoroutinefunction(get_response):
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        request.database = get_request_database(request)  # type: ignore[attr-defined]
        return self.get_response(request)


def get_request_database(request: HttpRequest) -> str:
    """Return the alias: analytics for the paths in ANALYTICS_PATHS and below, else the primary."""
    path = request.path_info
    for prefix in conf.analytics_paths():
        if path == prefix or path.startswith(f"{prefix.rstrip('/')}/"):
            return conf.analytics()
    return conf.primary()
