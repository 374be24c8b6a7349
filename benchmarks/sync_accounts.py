"""What the measurements of benchmarks.sync share: accounts to sync, and lines to print."""

import statistics
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.harness import Way, compare, empty_tables

__all__ = ["change", "execute", "fill", "print_line", "print_rates", "sample"]

_FILL = """
    INSERT INTO users_user (id, password, is_superuser, email, name, is_active, is_staff,
        date_joined, updated_at, last_login)
    SELECT gen_random_uuid(), 'pbkdf2_sha256$1000000$' || repeat('x', 66), false,
        'user.' || n || '@example.com', 'First Lastname ' || n, true, false,
        now() - n * interval '1 minute', now(),
        CASE WHEN mod(n, 4) > 0 THEN now() - n * interval '1 second' END
    FROM generate_series(%s, %s) AS n
"""


def fill(users: int) -> None:
    """Have as many users on the primary, with nothing in the log."""
    from users.models import User, UserChange

    stored = User.objects.count()
    if stored > users:
        empty_tables(User)
        stored = 0
    if stored < users:
        execute("default", "SET session_replication_role = replica")
        execute("default", _FILL, [stored + 1, users])
        execute("default", "SET session_replication_role = origin")
    empty_tables(UserChange)
    execute("default", "VACUUM ANALYZE users_user")


def change(keys: Sequence[Any]) -> None:
    """Give these users another name."""
    statement = "UPDATE users_user SET name = md5(random()::text) WHERE id = ANY(%s)"
    execute("default", statement, [keys])


def sample(number: int) -> list[Any]:
    """Return the ids of so many users, chosen at random."""
    from sharding.moves.servers import rows

    query = "SELECT id FROM users_user ORDER BY random() LIMIT %s"
    return [key for (key,) in rows("default", query, [number])]


def execute(alias: str, statement: str, parameters: Sequence[Any] = ()) -> None:
    from sharding.moves.servers import execute

    execute(alias, statement, parameters)


def print_rates(
    name: str,
    candidate: Way,
    baseline: Way,
    rows: int,
    baseline_rows: int | None = None,
    *,
    runs: int,
    goal: float,
    prepare: Callable[[], object] = lambda: None,
) -> None:
    """Print how many times the baseline's rate the candidate has."""
    ratio = compare(baseline=baseline, candidate=candidate, runs=runs, prepare=prepare)
    fast = [rows / seconds for seconds in ratio.candidate_seconds]
    slow = [(baseline_rows or rows) / seconds for seconds in ratio.baseline_seconds]
    rates = f"{statistics.median(fast):,.0f} / {statistics.median(slow):,.0f} rows/s"
    pairs = [a / b for a, b in zip(fast, slow, strict=True)]
    print_line(name, pairs, f"at least {goal}", f"  {rates}")


def print_line(name: str, values: Sequence[float], goal: str, more: str = "") -> None:
    spread = f"{min(values):.2f} to {max(values):.2f}"
    print(f"{name:48} {statistics.median(values):6.2f}  ({spread}; {goal}){more}", flush=True)
