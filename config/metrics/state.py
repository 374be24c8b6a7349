"""What Prometheus has the databases asked: whether they are up, and how long the logs are."""

from collections.abc import Iterator

from django.db import connections
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from analytics import sync
from sharding import conf
from sharding.errors import DatabaseUnavailable
from sharding.health import unreachable

__all__ = ["StateCollector"]


class StateCollector(Collector):
    """A database that is down is reported as such, and what only it knows is left out."""

    def collect(self) -> Iterator[Metric]:
        up = GaugeMetricFamily(
            "database_up", "Whether this process reaches the database.", labels=["alias"]
        )
        down = unreachable()
        for alias in connections:
            up.add_metric([conf.label(alias)], float(alias not in down))
        yield up
        yield from _logs()


def _logs() -> Iterator[Metric]:
    lag = GaugeMetricFamily(
        "sync_lag_seconds", "Age of the oldest change not yet copied.", labels=["source"]
    )
    entries = GaugeMetricFamily("sync_log_entries", "Changes not yet copied.", labels=["source"])
    size = GaugeMetricFamily("sync_log_bytes", "Size of the log's table.", labels=["source"])
    for source in sync.sources():
        try:
            measured = sync.measure(source)
        except (DatabaseUnavailable, sync.SyncFailed):
            continue
        lag.add_metric([source.name], measured.lag.total_seconds())
        entries.add_metric([source.name], measured.entries)
        size.add_metric([source.name], measured.bytes)
    yield from (lag, entries, size)
