"""What is noted of each request: its id, in every line of the log and in the response; how long it
took, and what it asked of which database."""

import logging
import re
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Any
from uuid import uuid4

from django.http import HttpRequest, HttpResponseBase
from django.utils.deprecation import MiddlewareMixin

from config.logs import current_request
from config.metrics import instruments
from sharding import conf, observing

__all__ = ["RequestsMiddleware"]

logger = logging.getLogger(__name__)

_HEADER = "X-Request-ID"
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
_PROBES = ("/healthz", "/readyz", "/metrics")  # every few seconds: only what fails is worth a line


class RequestsMiddleware(MiddlewareMixin):
    """Stands before all others, so that it sees what they answer too.

    An id that a proxy has given in X-Request-ID is kept.
    """

    async_mode: bool  # which the types of Django do not know
    get_response: Any

    def __init__(self, get_response: Any) -> None:
        super().__init__(get_response)
        instruments.connect()

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        if self.async_mode:
            return self._respond(request)
        with _noted(request) as noted:
            noted.response = self.get_response(request)
            return noted.response

    async def _respond(self, request: HttpRequest) -> HttpResponseBase:
        with _noted(request) as noted:
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
        self.asked: observing.Tally = {}
        self.start = perf_counter()

    def finish(self) -> None:
        """Note how it ended: by a response, or by an error."""
        seconds = perf_counter() - self.start
        if self.response is not None:
            self.response.headers[_HEADER] = self.id
        status = self.response.status_code if self.response is not None else 500
        instruments.request(self.request, status, seconds)
        self._log(status, seconds)

    def _log(self, status: int, seconds: float) -> None:
        method, path = self.request.method, self.request.path
        level = logging.DEBUG if path in _PROBES and status < 400 else logging.INFO
        databases = {
            conf.label(alias): {"queries": each.queries, "ms": round(each.seconds * 1000, 1)}
            for alias, each in self.asked.items()
        }
        # The path alone: what stands behind ? may be private.
        fields: dict[str, Any] = {"method": method, "path": path, "status": status}
        fields |= {"ms": round(seconds * 1000, 1), "databases": databases}
        logger.log(level, "%s %s %d", method, path, status, extra=fields)


@contextmanager
def _noted(request: HttpRequest) -> Iterator[_Noted]:
    noted = _Noted(request)
    token = current_request.set(noted.id)
    try:
        with observing.tallying(noted.asked):
            yield noted
    finally:
        noted.finish()
        current_request.reset(token)
