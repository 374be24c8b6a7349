"""The reports over many users: `python -m benchmarks.reports [--users N]`.

Prints how long each takes, and which index its query was answered from. The goal is in the seconds,
not in a ratio: a page waits for them.
"""

import argparse
import statistics
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from time import perf_counter
from typing import Any

from benchmarks.harness import benchmark_databases

_GOAL = 1.0  # seconds
_YEARS = 5  # over which the users joined: the longest range that a report takes
_LOAD = """
    WITH made AS (
        SELECT gen_random_uuid() AS id, n, now() - random() * interval '{years} years' AS joined
        FROM generate_series(1, {users}) AS n
    ),
    profiles AS (
        INSERT INTO analytics_profileanalytics (user_id, shard, country, plan, created_at,
            updated_at)
        SELECT id, 'shard_' || (1 + floor(random() * 3)::int),
            chr(65 + floor(random() * 26)::int) || chr(65 + floor(random() * 8)::int),
            (array['free','free','free','pro','team'])[1 + floor(random() * 5)::int],
            joined, joined
        FROM made
    )
    INSERT INTO analytics_useranalytics (user_id, email, name, is_active, is_staff, date_joined,
        last_login)
    SELECT id, 'user' || n || '@example.com', 'Name ' || n, random() < 0.95, random() < 0.01,
        joined, CASE WHEN random() < 0.8 THEN joined + random() * (now() - joined) END
    FROM made
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    with benchmark_databases():
        _load(options.users)
        slowest = 0.0
        print(f"{'milliseconds, medians':34}{options.users:>12,}  answered from")
        for name, report in _reports().items():
            seconds = _median(report, options.runs)
            slowest = max(slowest, seconds)
            print(f"{name:34}{1000 * seconds:12.1f}  {', '.join(_scans(report))}")
    print(f"Goal of {_GOAL:.0f} s {'missed' if slowest > _GOAL else 'reached by all'}.")


def _reports() -> dict[str, Callable[[], Any]]:
    from django.utils import timezone

    from analytics import reports

    today = timezone.now().date()
    month, longest = today - timedelta(days=29), today - reports.LONGEST
    year = today - timedelta(days=364)
    return {
        "totals": reports.totals,
        "sign_ups, 30 days": partial(reports.sign_ups, month, today),
        "sign_ups, a year by week": partial(reports.sign_ups, year, today, "week"),
        "sign_ups, 5 years by day": partial(reports.sign_ups, longest, today),
        "active_users, 30 days": partial(reports.active_users, month, today),
        "active_users, 5 years by month": partial(reports.active_users, longest, today, "month"),
        "by_country_and_plan": reports.by_country_and_plan,
        "by_shard": reports.by_shard,
        "retention, a year": partial(reports.retention, year, today),
        "retention, 5 years": partial(reports.retention, longest, today),
    }


def _load(users: int) -> None:
    from django.db import connections

    with connections["analytics"].cursor() as cursor:
        cursor.execute(_LOAD.format(users=users, years=_YEARS))
        cursor.execute("VACUUM ANALYZE")


def _median(report: Callable[[], Any], runs: int) -> float:
    """Return the median of so many runs, after one that fills caches."""
    seconds = []
    for _ in range(runs + 1):
        start = perf_counter()
        report()
        seconds.append(perf_counter() - start)
    return statistics.median(seconds[1:])


def _scans(report: Callable[[], Any]) -> Iterator[str]:
    """Yield how the report's query reads its tables, as EXPLAIN tells."""
    from django.db import connections

    plans: list[Any] = []

    def explain(execute: Any, sql: Any, params: Any, many: bool, context: Any) -> Any:
        with connections["analytics"].connection.cursor() as cursor:
            cursor.execute(f"EXPLAIN (FORMAT JSON) {sql}", params)
            plans.extend(cursor.fetchone()[0])
        return execute(sql, params, many, context)

    with connections["analytics"].execute_wrapper(explain):
        report()
    for plan in plans:
        yield from _of(plan["Plan"])


def _of(node: dict[str, Any]) -> Iterator[str]:
    if "Relation Name" in node or "Index Name" in node:
        yield f"{node['Node Type']} {node.get('Index Name') or node['Relation Name']}"
    for child in node.get("Plans", ()):
        yield from _of(child)


if __name__ == "__main__":
    main()
