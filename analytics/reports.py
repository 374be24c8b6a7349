"""Reports, from the analytics database alone: one query each, over a bounded range.

What answers quickly over a million users, and why:

    totals                 the table of accounts, scanned once: it counts all of them
    sign_ups, retention    the index on date_joined, for the range asked for
    active_users           the index on last_login, for the range asked for
    by_country_and_plan    the index on country and plan, scanned alone
    by_shard               the table of profiles, scanned once: the shard is a short column
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Literal

from django.db import connections

from sharding import conf

__all__ = [
    "BUCKETS",
    "LONGEST",
    "Count",
    "Retention",
    "Segment",
    "ShardCount",
    "Totals",
    "active_users",
    "by_country_and_plan",
    "by_shard",
    "retention",
    "sign_ups",
    "totals",
]

Bucket = Literal["day", "week", "month"]

BUCKETS: tuple[Bucket, ...] = ("day", "week", "month")
LONGEST = timedelta(days=5 * 366)


@dataclass(frozen=True)
class Totals:
    """Numbers of accounts, and of those who may log in and who are staff."""

    users: int
    active: int
    staff: int


@dataclass(frozen=True)
class Count:
    """A number of users in the day, week (from Monday) or month that begins at `start`."""

    start: date
    users: int


@dataclass(frozen=True)
class Segment:
    """A number of users with a country, or "", and a plan."""

    country: str
    plan: str
    users: int


@dataclass(frozen=True)
class ShardCount:
    """A number of users whose profiles were on a shard when they were copied."""

    shard: str
    users: int


@dataclass(frozen=True)
class Retention:
    """Of those who joined in a month, how many logged in last that many months later or after."""

    month: date
    joined: int
    months_later: int
    still_active: int


def totals() -> Totals:
    """Count all users."""
    rows = _query(
        "SELECT count(*), count(*) FILTER (WHERE is_active), count(*) FILTER (WHERE is_staff)"
        " FROM analytics_useranalytics"
    )
    return Totals(*rows[0])


def sign_ups(start: date, end: date, bucket: Bucket = "day") -> list[Count]:
    """Count who joined from `start` to `end`, both included; buckets without any count 0.

    Days are those of UTC. Raises ValueError for a range that is empty or longer than LONGEST.
    """
    return _counts("date_joined", start, end, bucket)


def active_users(start: date, end: date, bucket: Bucket = "day") -> list[Count]:
    """Count the users by their last login, likewise."""
    return _counts("last_login", start, end, bucket)


def by_country_and_plan() -> list[Segment]:
    """Count the users of each country and plan, the most first."""
    rows = _query(
        "SELECT country, plan, count(*) FROM analytics_profileanalytics"
        " GROUP BY country, plan ORDER BY count(*) DESC, country, plan"
    )
    return [Segment(*row) for row in rows]


def by_shard() -> list[ShardCount]:
    """Count the users of each shard, in the order of the shards' names."""
    rows = _query(
        "SELECT shard, count(*) FROM analytics_profileanalytics GROUP BY shard"
        " ORDER BY length(shard), shard"
    )
    return [ShardCount(*row) for row in rows]


def retention(start: date, end: date) -> list[Retention]:
    """For each month in which users joined, and each month since: how many were still active.

    Raises ValueError for a range that is empty or longer than LONGEST.
    """
    _require_range(start, end)
    rows = _query(_RETENTION, [start, end + timedelta(days=1)])
    return [Retention(*row) for row in rows]


# Rows are grouped by what is quick to compute, and only the few groups by what is asked for.
_SERIES = """
    SELECT bucket::date, coalesce(counted.users, 0)
    FROM generate_series(
        date_trunc(%(bucket)s, %(start)s::timestamp),
        date_trunc(%(bucket)s, %(end)s::timestamp),
        ('1 ' || %(bucket)s)::interval
    ) AS bucket
    LEFT JOIN (
        SELECT date_trunc(%(bucket)s, day::timestamp) AS bucket, sum(users)::bigint AS users
        FROM (
            SELECT ({column} AT TIME ZONE 'UTC')::date AS day, count(*) AS users
            FROM analytics_useranalytics
            WHERE {column} >= %(start)s::timestamp AT TIME ZONE 'UTC'
                AND {column} < (%(end)s::date + 1)::timestamp AT TIME ZONE 'UTC'
            GROUP BY 1
        ) AS by_day
        GROUP BY 1
    ) AS counted USING (bucket)
    ORDER BY bucket
"""
_SERIES_OF = {column: _SERIES.format(column=column) for column in ("date_joined", "last_login")}

_RETENTION = """
    WITH by_month AS (
        SELECT date_trunc('month', date_joined AT TIME ZONE 'UTC') AS month,
            date_trunc('month', last_login AT TIME ZONE 'UTC') AS last, count(*) AS users
        FROM analytics_useranalytics
        WHERE date_joined >= %s::timestamp AT TIME ZONE 'UTC'
            AND date_joined < %s::timestamp AT TIME ZONE 'UTC'
        GROUP BY 1, 2
    )
    SELECT month::date, sum(users)::bigint, later,
        coalesce(sum(users) FILTER (WHERE last >= month + later * interval '1 month'), 0)::bigint
    FROM by_month, generate_series(
        0,
        (12 * (extract(year FROM now()) - extract(year FROM month))
            + extract(month FROM now()) - extract(month FROM month))::int
    ) AS later
    GROUP BY month, later
    ORDER BY month, later
"""


def _counts(column: str, start: date, end: date, bucket: Bucket) -> list[Count]:
    _require_range(start, end)
    if bucket not in BUCKETS:
        raise ValueError(f"{bucket!r} is none of {', '.join(BUCKETS)}.")
    parameters = {"bucket": bucket, "start": start, "end": end}
    return [Count(*row) for row in _query(_SERIES_OF[column], parameters)]


def _require_range(start: date, end: date) -> None:
    if not timedelta() <= end - start <= LONGEST:
        raise ValueError(
            f"From {start} to {end} is no range for a report: it must not end before it begins, "
            f"nor be longer than {LONGEST.days} days."
        )


def _query(sql: str, parameters: Any = None) -> Sequence[tuple[Any, ...]]:
    with connections[conf.analytics()].cursor() as cursor:
        cursor.execute(sql, parameters)
        return cursor.fetchall()
