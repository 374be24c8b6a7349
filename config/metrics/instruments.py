"""What each process counts. All labels take few values: aliases, kinds, routes, never a key.

With PROMETHEUS_MULTIPROC_DIR, which config/gunicorn.py sets, the processes count in files there and
whichever of them is asked answers for all.
"""

from functools import cache
from typing import Any

from django.http import HttpRequest
from prometheus_client import Counter, Gauge, Histogram

from sharding import conf, observing
from sharding.signals import fanned_out, fell_back

__all__ = ["connect", "request"]

_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}

QUERIES = Histogram(
    "database_query_seconds",
    "Statements: one shard by its key, one of several in a fan-out, or a database without shards.",
    ["alias", "kind"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 5),
)
FAN_OUTS = Histogram(
    "database_fan_out_shards",
    "How many shards a query over several of them asked.",
    buckets=(2, 3, 4, 8, 16, 32, 64, 128, 256, 512),
)
POOL = Gauge(
    "database_pool_connections",
    "Connections of all processes: in use, idle, and waited for.",
    ["alias", "state"],
    multiprocess_mode="livesum",
)
FALLBACKS = Counter(
    "database_fallback_reads_total",
    "Reads of accounts that copies answered because the primary could not be reached.",
)
REQUESTS = Histogram(
    "http_request_seconds",
    "Requests, until their response begins.",
    ["method", "route", "status"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)

_pools: dict[str, tuple[int, int, int]] = {}


def connect() -> None:
    """Begin to count; again it does nothing."""
    observing.observe(_query)
    observing.observe_pools(_pool)
    fanned_out.connect(_fan_out)
    fell_back.connect(_fallback)


def request(request: HttpRequest, status: int, seconds: float) -> None:
    """Count one request, under the pattern of its address."""
    match = request.resolver_match
    method = request.method if request.method in _METHODS else "other"
    REQUESTS.labels(method, match.route if match else "", status).observe(seconds)


def _query(alias: str, kind: str, seconds: float) -> None:
    _statements(alias, kind).observe(seconds)


@cache  # looking labels up takes as long as counting
def _statements(alias: str, kind: str) -> Histogram:
    return QUERIES.labels(conf.label(alias), kind)


def _pool(alias: str, *connections: int) -> None:
    if _pools.get(alias) != connections:
        _pools[alias] = connections  # type: ignore[assignment]
        for state, number in zip(("in use", "idle", "waited for"), connections, strict=True):
            POOL.labels(conf.label(alias), state).set(number)


def _fan_out(sender: Any, aliases: tuple[str, ...], **kwargs: Any) -> None:
    FAN_OUTS.observe(len(aliases))


def _fallback(sender: Any, **kwargs: Any) -> None:
    FALLBACKS.inc()
