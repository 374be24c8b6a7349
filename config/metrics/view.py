"""/metrics, for Prometheus with the token of METRICS_TOKEN, and for staff."""

import os

from django.conf import settings
from django.db import OperationalError
from django.http import HttpRequest, HttpResponse
from django.utils.crypto import constant_time_compare
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from config.metrics.state import StateCollector

__all__ = ["metrics"]


@require_safe
@never_cache
def metrics(request: HttpRequest) -> HttpResponse:
    """Answer with all metrics as text; 401 to anybody else."""
    if not (_has_token(request) or _is_staff(request)):
        text = "For staff, or with METRICS_TOKEN: Authorization: Bearer <token>.\n"
        headers = {"WWW-Authenticate": 'Bearer realm="metrics"'}
        return HttpResponse(text, status=401, content_type="text/plain", headers=headers)
    return HttpResponse(generate_latest(_registry()), content_type=CONTENT_TYPE_LATEST)


def _registry() -> CollectorRegistry:
    registry = CollectorRegistry()
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        MultiProcessCollector(registry)
    else:
        registry.register(REGISTRY)
    registry.register(StateCollector())
    return registry


def _has_token(request: HttpRequest) -> bool:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    given = settings.METRICS_TOKEN and scheme.lower() == "bearer"
    return bool(given) and constant_time_compare(token.strip(), settings.METRICS_TOKEN)


def _is_staff(request: HttpRequest) -> bool:
    try:
        return bool(request.user.is_active and request.user.is_staff)
    except OperationalError:  # the primary, which knows the accounts, is down
        return False
