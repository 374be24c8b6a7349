"""The admin's pages with many users against few: `python -m benchmarks.admin [--users N]`.

Each page is asked for by a client in this process, so the seconds are those of Django and of the
databases. The goal is in the seconds, not in the ratio: a page must take less than one, with a
million users and with a shard down.
"""

import argparse
import os
import statistics
from collections.abc import Callable
from functools import partial
from time import perf_counter
from typing import Any

from benchmarks.harness import benchmark_databases

_FEW = 1_000
_GOAL = 1.0  # seconds
_PAGES = {
    "dashboard": "/admin/",
    "profiles": "/admin/users/profile/",
    "profiles, one country": "/admin/users/profile/?country=CH",
    "profiles, ordered by name": "/admin/users/profile/?o=1",
    "profiles, by name": "/admin/users/profile/?q=name+77",
    "profiles, none found": "/admin/users/profile/?q=nobody",
    "profiles, by email": "/admin/users/profile/?q=user77.1000@example.com",
    "activities": "/admin/users/activity/",
    "accounts": "/admin/users/user/",
    "accounts, by name": "/admin/users/user/?q=name+77",
    "accounts, none found": "/admin/users/user/?q=nobody",
    "users in analytics": "/admin/analytics/useranalytics/",
    "profiles in analytics": "/admin/analytics/profileanalytics/",
}

# An id whose slot, the first 8 hex digits modulo 1000, lies in a range.
_ID = (
    "(lpad(to_hex(floor(random() * 4000000)::bigint * 1000"
    " + {low} + floor(random() * {size})::int), 8, '0')"
    " || substr(gen_random_uuid()::text, 9))::uuid"
)
_JOINED = "now() - random() * interval '900 days'"
_PICK = "(array['CH','DE','FR','GB','IN','JP','US',''])[1 + floor(random() * 8)::int]"
_PLAN = "(array['free','free','free','pro','team'])[1 + floor(random() * 5)::int]"
_SHARD = "'shard_' || (1 + floor(random() * 3)::int)"
_LOADS = {
    "default": """
        INSERT INTO users_user (id, password, is_superuser, email, name, is_active, is_staff,
            date_joined, updated_at)
        SELECT {id}, '', false, {email}, 'Name ' || n, true, false, {joined}, now()
        FROM generate_series(1, {number}) AS n
    """,
    "analytics": """
        WITH made AS (
            SELECT {id} AS id, n, {joined} AS joined FROM generate_series(1, {number}) AS n
        ),
        profiles AS (
            INSERT INTO analytics_profileanalytics (user_id, shard, country, plan, created_at,
                updated_at)
            SELECT id, {shard}, {country}, {plan}, joined, joined FROM made
        )
        INSERT INTO analytics_useranalytics (user_id, email, name, is_active, is_staff, date_joined,
            last_login)
        SELECT id, {email}, 'Name ' || n, true, false, joined, joined FROM made
    """,
    "shard": """
        INSERT INTO users_profile (user_id, display_name, country, plan, bio, settings, created_at,
            updated_at)
        SELECT {id}, 'Name ' || n, {country}, {plan}, '', '{{}}', {joined}, now()
        FROM generate_series(1, {number}) AS n;
        INSERT INTO users_activity (id, user_id, kind, amount, payload, occurred_at)
        SELECT gen_random_uuid(), user_id, 'login', 0, '{{}}', created_at FROM users_profile
    """,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    os.environ.setdefault("LOG_FORMAT", "text")  # as JSON, there is a line for each request
    with benchmark_databases() as cluster:
        _load(_FEW)
        few = _times(options.runs)
        _load(options.users - _FEW)
        many = _times(options.runs)
        cluster.kill("shard_2")
        down = _times(options.runs)
    print(f"{'seconds, medians':28}{_FEW:>12,}{options.users:>12,}{'shard down':>12}{'ratio':>8}")
    for name, seconds in many.items():
        print(
            f"{name:28}{few[name]:12.3f}{seconds:12.3f}{down[name]:12.3f}{seconds / few[name]:8.1f}"
        )
    slow = [name for name in many if max(many[name], down[name]) > _GOAL]
    print(f"Goal of {_GOAL:.0f} s {'missed by ' + ', '.join(slow) if slow else 'reached by all'}.")


def _load(number: int) -> None:
    """Add so many users, spread evenly. No triggers: what they log is the sync's business."""
    from django.db import connections

    from sharding import slot_cache

    owners = slot_cache.current().owners
    for alias in connections:
        owned = [slot for slot, owner in enumerate(owners) if owner == alias]
        low, size = (owned[0], len(owned)) if owned else (0, len(owners))
        statement = _LOADS["shard" if owned else alias].format(
            id=_ID.format(low=low, size=size),
            joined=_JOINED,
            country=_PICK,
            plan=_PLAN,
            shard=_SHARD,
            email=f"'user' || n || '.{number}@example.com'",
            number=number * size // len(owners),
        )
        with connections[alias].cursor() as cursor:
            cursor.execute("SET session_replication_role = replica")
            cursor.execute(statement)
            cursor.execute("SET session_replication_role = origin")
            cursor.execute("VACUUM ANALYZE")


def _times(runs: int) -> dict[str, float]:
    from django.test import Client

    from users.models import User

    admin = User.objects.filter(is_superuser=True).first()
    client = Client(headers={"host": "localhost"})
    client.force_login(admin or User.objects.create_superuser("admin@example.com"))
    return {
        name: _median(partial(client.get, url, secure=True), runs) for name, url in _PAGES.items()
    }


def _median(get: Callable[[], Any], runs: int) -> float:
    """Return the median of so many runs, after one that fills caches."""
    seconds = []
    for _ in range(runs + 1):
        start = perf_counter()
        response = get()
        seconds.append(perf_counter() - start)
        if response.status_code != 200:
            raise SystemExit(f"The page answered {response}, so its time says nothing.")
    return statistics.median(seconds[1:])


if __name__ == "__main__":
    main()
