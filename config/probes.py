"""/healthz and /readyz: what load balancers and orchestrators ask."""

from collections.abc import Callable
from typing import Any

from asgiref.sync import sync_to_async
from django.db import connections
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils.deprecation import MiddlewareMixin

from sharding import conf
from sharding.health import unreachable

__all__ = ["ProbesMiddleware", "healthz", "readyz"]


def healthz(request: HttpRequest) -> HttpResponse:
    """Say that the process is alive; a database that is down is no reason to restart it."""
    return HttpResponse("ok", content_type="text/plain")


def readyz(request: HttpRequest) -> HttpResponse:
    """Say what works: 503 while the primary is down, "degraded" while another database is."""
    down = unreachable()
    ready = conf.primary() not in down
    state = "ready" if not down else "degraded" if ready else "unavailable"
    databases = {conf.label(alias): "down" if alias in down else "up" for alias in connections}
    headers = {} if ready else {"Retry-After": "5"}
    body = {"status": state, "databases": databases}
    return JsonResponse(body, status=200 if ready else 503, headers=headers)


PROBES: dict[str, Callable[[HttpRequest], HttpResponse]] = {"/healthz": healthz, "/readyz": readyz}


class ProbesMiddleware(MiddlewareMixin):
    """Answers probes before anything looks at them: they come by IP address and without TLS.

    What compares the host with ALLOWED_HOSTS would refuse them, and a redirect to https is no
    answer. They depend on neither.
    """

    async_mode: bool  # which the types of Django do not know
    get_response: Any

    def __call__(self, request: HttpRequest) -> Any:
        if probe := PROBES.get(request.path_info):
            return sync_to_async(probe)(request) if self.async_mode else probe(request)
        return self.get_response(request)
