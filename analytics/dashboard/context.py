"""What the index shows. Nothing here takes longer with more users, or fails with a server down."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.http import HttpRequest
from django.utils import timezone

from analytics import sync
from analytics.dashboard.charts import (
    Chart,
    countries_and_plans,
    sign_ups_per_day,
    users_per_shard,
)
from analytics.models import SyncRun
from analytics.reports import by_country_and_plan, by_shard, sign_ups
from sharding import conf
from sharding.errors import DatabaseUnavailable
from sharding.overview import overview

__all__ = ["SYNC_PERMISSION", "dashboard"]

SYNC_PERMISSION = "analytics.add_syncrun"
_DAYS = 30
_RUNS = 8


@dataclass(frozen=True)
class Lag:
    """How far the copies of one source are behind, or None where it cannot be asked."""

    source: str
    age: timedelta | None

    @property
    def text(self) -> str:
        """The age in words: seconds, or days, hours and minutes."""
        seconds = self.age.total_seconds() if self.age else 0
        return f"{seconds:.0f} s" if seconds < 120 else f"{timedelta(seconds=int(seconds))}"


def dashboard(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Add to the index's context what its template shows to this user."""
    states = overview()
    down = {state.alias for state in states if not state.up}
    context |= {
        "databases": states,
        "down": [state.label for state in states if not state.up],
        "may_sync": request.user.has_perm(SYNC_PERMISSION),
    }
    if request.user.has_perm("analytics.view_syncrun"):
        context |= {"lags": _lags(down), "runs": _runs(down)}
    if request.user.has_perm("analytics.view_useranalytics"):
        context["charts"] = _charts(down)
    return context


def _lags(down: set[str]) -> list[Lag]:
    return [Lag(source.name, _lag(source, down)) for source in sync.sources()]


def _lag(source: sync.Source, down: set[str]) -> timedelta | None:
    if source.alias in down:
        return None
    try:
        return sync.lag(source)
    except (sync.SyncFailed, DatabaseUnavailable):
        return None


def _runs(down: set[str]) -> list[SyncRun]:
    if conf.analytics() in down:
        return []
    try:
        return sync.last_runs(_RUNS)
    except (sync.SyncFailed, DatabaseUnavailable):
        return []


def _charts(down: set[str]) -> list[Chart]:
    if conf.analytics() in down:
        return []
    today = timezone.now().date()
    try:
        return [
            sign_ups_per_day(sign_ups(today - timedelta(days=_DAYS - 1), today)),
            countries_and_plans(by_country_and_plan()),
            users_per_shard(by_shard()),
        ]
    except DatabaseUnavailable:
        return []
