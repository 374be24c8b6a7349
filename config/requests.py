"""What is noted of each request: its id, in every line of the log and in the response; how long it
took, and what it asked of which database."""

import logging
import re
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from time import perf_counter
from typing import Any
from uuid import uuid4

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http import HttpRequest, HttpResponseBase

from config.logs import current_request
from config.metrics import instruments
from sharding import conf, observing

__all__ = ["RequestsMiddleware"]

logger = logging.getLogger(__name__)

_HEADER = "X-Request-ID"
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
_PROBES = ("/healthz", "/readyz", "/metrics")  # every few seconds: only what fails is worth a line

# Alias -> queries and seconds, for the request that is being answered.
_asked: ContextVar[dict[str, list[float]] | None] = ContextVar("asked", default=None)


class RequestsMiddleware:
    """Stands before all others, so that it sees what they answer too.

    An id that a proxy has given in X-Request-ID is kept.
    """

    sync_capable = True
    async_capable = True

    def __init__(
        self, get_response: Callable[[HttpRequest], HttpResponseBase | Awaitable[HttpResponseBase]]
    ) -> None:
        self.get_response: Any = get_response
        self.is_async = iscoroutinefunction(get_response)
        if self.is_async:
            markcoroutinefunction(self)
        observing.observe(_count)
        instruments.connect()

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        if self.is_async:
            return self._respond(request)
        with _Noted(request) as noted:
            noted.response = self.get_response(request)
            return noted.response

    async def _respond(self, request: HttpRequest) -> HttpResponseBase:
        with _Noted(request) as noted:
            noted.response = await self.get_response(request)
            return noted.response


class _Noted:
    """One request, from its arrival to the beginning of its response."""

    response: HttpResponseBase | None = None

    def __init__(self, request: HttpRequest) -> None:
        given = request.headers.get(_HEADER, "")
        self.id = given if _ID.fullmatch(given) else uuid4().hex
        self.request = request
        request.id = self.id  # type: ignore[attr-defined]
        self.asked: dict[str, list[float]] = {}

    def __enter__(self) -> "_Noted":
        self.start = perf_counter()
        self.tokens = current_request.set(self.id), _asked.set(self.asked)
        return self

    def __exit__(self, *error: object) -> None:
        seconds = perf_counter() - self.start
        if self.response is not None:
            self.response.headers[_HEADER] = self.id
        status = self.response.status_code if self.response is not None else 500
        instruments.request(self.request, status, seconds)
        self._log(status, seconds)
        current_request.reset(self.tokens[0])
        _asked.reset(self.tokens[1])

    def _log(self, status: int, seconds: float) -> None:
        method, path = self.request.method, self.request.path
        level = logging.DEBUG if path in _PROBES and status < 400 else logging.INFO
        databases = {
            conf.label(alias): {"queries": int(number), "ms": round(took * 1000, 1)}
            for alias, (number, took) in self.asked.items()
        }
        # The path alone: what stands behind ? may be private.
        fields: dict[str, Any] = {"method": method, "path": path, "status": status}
        fields |= {"ms": round(seconds * 1000, 1), "databases": databases}
        logger.log(level, "%s %s %d", method, path, status, extra=fields)


def _count(alias: str, kind: str, seconds: float) -> None:
    if (asked := _asked.get()) is not None:
        counted = asked.setdefault(alias, [0, 0.0])
        counted[0] += 1
        counted[1] += seconds
