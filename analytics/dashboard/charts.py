"""Charts for Unfold's chart component, which takes Chart.js's data and options as JSON."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from analytics.reports import Count, Segment, ShardCount

__all__ = ["Chart", "countries_and_plans", "sign_ups_per_day", "users_per_shard"]

_COUNTRIES = 12
_COLORS = ("var(--color-primary-700)", "var(--color-primary-400)", "var(--color-primary-200)")
_GRAY = "#9ca3af"


@dataclass(frozen=True)
class Chart:
    """One chart. `summary` says in words what is most important: not everybody sees a canvas."""

    title: str
    summary: str
    data: str
    options: str


def sign_ups_per_day(counts: Sequence[Count]) -> Chart:
    """How many users joined on each day."""
    total = sum(count.users for count in counts)
    return Chart(
        title="Sign-ups per day",
        summary=f"{total:,} in {len(counts)} days",
        data=_data(
            [f"{count.start:%-d %b}" for count in counts],
            {"Sign-ups": [count.users for count in counts]},
        ),
        options=_options(),
    )


def countries_and_plans(segments: Iterable[Segment]) -> Chart:
    """How many users each country has on each plan; the smaller countries together."""
    by_country: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for segment in segments:
        by_country[segment.country or "none"][segment.plan] += segment.users
    largest = sorted(by_country, key=lambda name: -sum(by_country[name].values()))
    shown, others = largest[:_COUNTRIES], largest[_COUNTRIES:]
    plans = sorted({plan for counts in by_country.values() for plan in counts})
    series = {plan: [by_country[name][plan] for name in shown] for plan in plans}
    if others:
        for plan in plans:
            series[plan].append(sum(by_country[name][plan] for name in others))
    summary = f"{len(largest)} countries; most users in {largest[0]}" if largest else "No users yet"
    labels = [*shown, *(["others"] if others else [])]
    return Chart(
        "Users by country and plan", summary, _data(labels, series), _options(stacked=True)
    )


def users_per_shard(counts: Sequence[ShardCount]) -> Chart:
    """How many users each shard holds."""
    numbers = [count.users for count in counts]
    summary = f"{sum(numbers):,} users on {len(counts)} shards"
    data = _data([count.shard for count in counts], {"Users": numbers})
    return Chart("Users per shard", summary, data, _options())


def _data(labels: Sequence[str], series: Mapping[str, Sequence[int]]) -> str:
    datasets = [
        {"label": name, "data": values, "backgroundColor": _COLORS[number % len(_COLORS)]}
        for number, (name, values) in enumerate(series.items())
    ]
    return json.dumps({"labels": labels, "datasets": datasets})


def _options(*, stacked: bool = False) -> str:
    ticks = {"color": _GRAY, "maxRotation": 0}
    # Names are all shown, upright where there is room for no more; of days some suffice.
    names = {"color": _GRAY, "autoSkip": False} if stacked else ticks
    options: dict[str, Any] = {
        "animation": False,
        "maintainAspectRatio": False,
        "plugins": {"legend": {"display": stacked, "align": "end", "labels": {"color": _GRAY}}},
        "scales": {
            "x": {
                "stacked": stacked,
                "ticks": names,
                "grid": {"display": False},
            },
            "y": {"stacked": stacked, "ticks": {**ticks, "precision": 0}, "beginAtZero": True},
        },
    }
    return json.dumps(options)
