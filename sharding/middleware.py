"""Which database a request works on, held to it, and told to those who develop."""

from collections.abc import AsyncIterator, Awaitable, Iterator
from typing import Any, cast

from django.conf import settings
from django.http import HttpRequest, HttpResponseBase, StreamingHttpResponse
from django.utils.deprecation import MiddlewareMixin
from django.utils.functional import SimpleLazyObject

from sharding import conf
from sharding.scope import Scope, authenticating, entered

__all__ = ["DatabaseSelectionMiddleware", "get_request_database"]


class DatabaseSelectionMiddleware(MiddlewareMixin):
    """Sets `request.database`, the alias of the database that the request works on.

    A request for analytics that asks another database is refused, see `sharding.scope`; who sent it
    may be looked up all the same. Stands after Django's AuthenticationMiddleware.
    """

    async_mode: bool  # which the types of Django do not know
    get_response: Any

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        scope = _prepare(request)
        if self.async_mode:
            return self._respond(request, scope)
        with entered(scope):
            response = self.get_response(request)
        return _finish(request, response, scope)

    async def _respond(self, request: HttpRequest, scope: Scope) -> HttpResponseBase:
        with entered(scope):
            response = await self.get_response(request)
        return _finish(request, response, scope)


def get_request_database(request: HttpRequest) -> str:
    """Return the alias: analytics for the paths in ANALYTICS_PATHS and below, else the primary."""
    path = request.path_info
    for prefix in conf.analytics_paths():
        if path == prefix or path.startswith(f"{prefix.rstrip('/')}/"):
            return conf.analytics()
    return conf.primary()


def _prepare(request: HttpRequest) -> Scope:
    alias = get_request_database(request)
    request.database = alias  # type: ignore[attr-defined]
    scope = Scope(request.path_info, reports=alias == conf.analytics())
    if scope.reports and hasattr(request, "user"):
        _allow_user(request)
    return scope


def _allow_user(request: HttpRequest) -> None:
    """Let the user be looked up on the primary, whenever the view first asks who it is."""
    user, find = request.user, getattr(request, "auser", None)

    def resolved() -> Any:
        with authenticating():
            _ = user.is_authenticated  # a lazy object: looked up now
        return user

    async def found() -> Any:
        with authenticating():
            return await cast(Any, find)()

    request.user = cast(Any, SimpleLazyObject(resolved))
    if find:
        request.auser = found


def _finish(request: HttpRequest, response: HttpResponseBase, scope: Scope) -> HttpResponseBase:
    if settings.DEBUG and request.headers.get("X-Environment") == "dev":
        response["X-Database"] = conf.label(request.database)  # type: ignore[attr-defined]
        response["Server-Timing"] = ", ".join(
            f'{conf.label(alias)};dur={timing.seconds * 1000:.1f};desc="{timing.queries} queries"'
            for alias, timing in scope.timings.items()
        )
    if isinstance(response, StreamingHttpResponse) and scope.reports:
        parts: Any = response.streaming_content
        response.streaming_content = (
            _streamed_later(parts, scope) if response.is_async else _streamed(parts, scope)
        )
    return response


# A generator's context is its caller's: entered for each part, or it would leak in between.


def _streamed(parts: Iterator[bytes], scope: Scope) -> Iterator[bytes]:
    while True:
        with entered(scope):
            part = next(parts, None)
        if part is None:
            return
        yield part


async def _streamed_later(parts: AsyncIterator[bytes], scope: Scope) -> AsyncIterator[bytes]:
    while True:
        with entered(scope):
            part = await anext(parts, None)
        if part is None:
            return
        yield part
