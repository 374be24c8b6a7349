"""The sync of accounts against other ways to copy them, and what it costs the primary.

    python -m benchmarks.sync [--users 1000000] [--runs 3] [--only first,full,…]

Each line is a ratio in one run, the median of several, with its goal beside it. Rates are of rows.
"""

import argparse
import os
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from psycopg.sql import SQL, Identifier

from benchmarks.harness import Way, benchmark_databases, compare, empty_tables, timed

_TWIN = "copied"  # a table like that of the copies, for the COPY pipe where those must stay
_FEW = 10_000  # users
_CHANGED = 1_000  # of them, or of all
_SLOW_ROWS = 50_000  # for bulk_create
_TRANSACTIONS = 2_000
_PART = 250  # of them that make one ratio
_WARM = 20
_STATEMENT = 100_000  # rows
_FILL = """
    INSERT INTO users_user (id, password, is_superuser, email, name, is_active, is_staff,
        date_joined, updated_at, last_login)
    SELECT gen_random_uuid(), 'pbkdf2_sha256$1000000$' || repeat('x', 66), false,
        'user.' || n || '@example.com', 'First Lastname ' || n, true, false,
        now() - n * interval '1 minute', now(),
        CASE WHEN mod(n, 4) > 0 THEN now() - n * interval '1 second' END
    FROM generate_series(%s, %s) AS n
"""


def main() -> None:
    arguments = _arguments()
    # The users stand on the primary: one shard, without any, is enough.
    os.environ["SHARD_SLOTS"] = "shard_1=0-999"
    with benchmark_databases(shards=1):
        for name, measure in MEASUREMENTS.items():
            if not arguments.only or name in arguments.only:
                measure(arguments.users, arguments.runs)


def first(users: int, runs: int) -> None:
    """A first load over a COPY piped into the same table."""
    from benchmarks.sync_rivals import copy_pipe

    fill(users)
    pipe, load = Way("", copy_pipe, before=_forget), Way("", _load, before=_forget)
    _print_rates("first load / COPY pipe", load, pipe, users, runs=runs, goal=0.85)


def native(users: int, runs: int) -> None:
    """A first load over the initial copy of PostgreSQL's logical replication."""
    from benchmarks.sync_rivals import native_copy, no_native

    fill(users)
    copy, load = Way("", native_copy, before=no_native), Way("", _load, before=_forget)
    _print_rates("first load / logical replication", load, copy, users, runs=runs, goal=1.0)
    no_native()


def django(users: int, runs: int) -> None:
    """A first load over bulk_create() of fewer rows."""
    from benchmarks.sync_rivals import bulk_create

    fill(users)
    rows = min(users, _SLOW_ROWS)
    bulk = Way("", lambda: bulk_create(rows), before=_forget)
    load = Way("", _load, before=_forget)
    name = "first load / bulk_create(update_conflicts)"
    _print_rates(name, load, bulk, users, rows, runs=runs, goal=12)


def dlt(users: int, runs: int) -> None:
    """A first load over dlt."""
    from benchmarks.sync_rivals import dlt_replace

    name = "first load / dlt (pyarrow, replace)"
    if not (replace := dlt_replace()):
        print(f"{name}: not installed, see requirements-bench.txt")
        return
    fill(users)
    load = Way("", _load, before=_forget)
    _print_rates(name, load, Way("", replace), users, runs=runs, goal=6)


def full(users: int, runs: int) -> None:
    """--full with nothing changed over the COPY pipe."""
    _compare_full("--full, nothing changed / COPY pipe", users, runs, changed=0, goal=5)


def repair(users: int, runs: int) -> None:
    """--full with a few users changed over the COPY pipe."""
    _compare_full("--full, 100 changed / COPY pipe", users, runs, changed=100, goal=4)


def incremental(users: int, runs: int) -> None:
    """1,000 changes among many users over the same among few."""
    few, many = (_increments(number, 4 * runs) for number in (_FEW, users))
    pairs = [b / a for a, b in zip(few, many, strict=True)]
    _print(f"{_CHANGED:,} changed among {users:,} / among {_FEW:,}", pairs, "at most 1.5")
    _print("seconds for them", many, "under 0.5")


def trigger(users: int, runs: int) -> None:
    """Writes on the primary with the trigger over the same without."""
    fill(users)
    _tidy()
    few = _sample(min(users, _TRANSACTIONS * runs))
    _compare_single_rows("UPDATE of one row", _by_statement, few)
    _compare_single_rows("update() of one row in atomic()", _by_django, few)
    many = _sample(min(users, _STATEMENT))
    on, off = (
        Way("", partial(_update_all, many), before=partial(_set_trigger, many[:_WARM], on=on))
        for on in (True, False)
    )
    name = f"UPDATE of {len(many):,} rows, with trigger / without"
    _print_rates(name, on, off, len(many), runs=runs, goal=0.6, prepare=_tidy)
    _tidy()


def memory(users: int, runs: int) -> None:
    """How much more memory than at its start the command takes."""
    from benchmarks.sync_process import peak_growth

    fill(users)
    _forget()
    for name, options, changed in (
        ("first load", [], 0),
        ("--full, nothing changed", ["--full"], 0),
        (f"{users // 10:,} changes", [], users // 10),
        ("--full, a third changed", ["--full"], users // 3),
    ):
        _change(_sample(changed))
        _print(f"MiB that {name} takes", [peak_growth(options)], "at most 64")


def follow(users: int, runs: int) -> None:
    """From a commit on the primary to analytics, by --follow under load."""
    from benchmarks.sync_process import followed

    fill(users)
    _load()
    rate, waits = followed(_sample(min(users, 10_000)))
    _print(f"seconds to analytics, {rate:.0f} changes/s", waits, "median under 1")


MEASUREMENTS: dict[str, Callable[[int, int], None]] = {
    "first": first,
    "native": native,
    "django": django,
    "dlt": dlt,
    "full": full,
    "repair": repair,
    "incremental": incremental,
    "trigger": trigger,
    "memory": memory,
    "follow": follow,
}


def fill(users: int) -> None:
    """Have as many users on the primary, with nothing in the log."""
    from users.models import User, UserChange

    stored = User.objects.count()
    if stored > users:
        empty_tables(User)
        stored = 0
    if stored < users:
        _execute("default", "SET session_replication_role = replica")
        _execute("default", _FILL, [stored + 1, users])
        _execute("default", "SET session_replication_role = origin")
    empty_tables(UserChange)
    _execute("default", "VACUUM ANALYZE users_user")


def _forget() -> None:
    """Empty the copies, and forget that there were any."""
    from analytics.models import SyncCheckpoint, SyncPosition, UserAnalytics
    from users.models import UserChange

    empty_tables(UserAnalytics, SyncCheckpoint, SyncPosition, UserChange)


def _load(*, full: bool = False) -> None:
    from analytics.sync import sync_source
    from benchmarks.sync_rivals import SOURCE

    for _ in sync_source(SOURCE, full=full):
        pass


def _compare_full(name: str, users: int, runs: int, *, changed: int, goal: float) -> None:
    from benchmarks.sync_rivals import TARGET, copy_pipe

    fill(users)
    _load()
    _execute("analytics", f"CREATE TABLE IF NOT EXISTS {_TWIN} (LIKE {TARGET} INCLUDING ALL)")
    keys = _sample(changed)

    def prepare() -> None:
        _execute("analytics", f"TRUNCATE {_TWIN}")
        empty_tables()

    pipe = Way("", lambda: copy_pipe(_TWIN))
    again = Way("", lambda: _load(full=True), before=lambda: _change(keys))
    _print_rates(name, again, pipe, users, runs=runs, goal=goal, prepare=prepare)


def _increments(users: int, runs: int) -> Sequence[float]:
    fill(users)
    _load()
    keys = _sample(_CHANGED)
    seconds = []
    for _ in range(runs + 1):
        _change(keys)
        seconds.append(timed(_load))
    return seconds[1:]


def _compare_single_rows(name: str, update: Callable[[str, Any], object], keys: list) -> None:
    """Update one row in a transaction, by turns with and without the trigger; print the ratio.

    On two connections, as whoever switches triggers off must make all plans anew.
    """
    with _unlogged_alias() as unlogged:
        seconds: dict[str, list[float]] = {"default": [], unlogged: []}
        for number, key in enumerate(keys):
            for alias in sorted(seconds, reverse=bool(number % 2)):
                seconds[alias].append(timed(partial(update, alias, key), collect=False))
    pairs = list(zip(seconds["default"], seconds[unlogged], strict=True))
    parts = [pairs[start : start + _PART] for start in range(_WARM, len(pairs), _PART)]
    medians = [tuple(map(statistics.median, zip(*part, strict=True))) for part in parts]
    rates = " / ".join(f"{1 / statistics.median(way):,.0f}" for way in zip(*medians, strict=True))
    name = f"{name}, with trigger / without"
    _print(name, [off / on for on, off in medians], "at least 0.93", f"  {rates} rows/s")


@contextmanager
def _unlogged_alias() -> Iterator[str]:
    """A second connection to the primary, on which no trigger fires but those of foreign keys."""
    from django.db import connections

    from sharding.moves.servers import rows

    internal = (
        "SELECT tgname FROM pg_trigger WHERE tgrelid = 'users_user'::regclass AND tgisinternal"
    )
    for (trigger,) in rows("default", internal):
        enable = SQL("ALTER TABLE users_user ENABLE ALWAYS TRIGGER {}")
        _execute("default", enable.format(Identifier(trigger)).as_string())
    connections["unlogged"] = connections["default"].copy("unlogged")
    try:
        _execute("unlogged", "SET session_replication_role = replica")
        yield "unlogged"
    finally:
        connections["unlogged"].close()
        del connections["unlogged"]


def _by_statement(alias: str, key: Any) -> None:
    from django.db import connections

    with connections[alias].cursor() as cursor:
        cursor.execute("UPDATE users_user SET is_staff = NOT is_staff WHERE id = %s", [key])


def _by_django(alias: str, key: Any) -> None:
    from django.db import models, transaction

    from users.models import User

    with transaction.atomic(using=alias):
        other = models.Case(models.When(is_staff=True, then=False), default=True)
        User.objects.using(alias).filter(pk=key).update(is_staff=other)


def _set_trigger(keys: Sequence[Any] = (), *, on: bool) -> None:
    _execute("default", f"ALTER TABLE users_user {'ENABLE' if on else 'DISABLE'} TRIGGER USER")
    for key in keys:  # as plans must be made anew after that
        _update_all([key])


def _tidy() -> None:
    from users.models import UserChange

    _set_trigger(on=True)
    _execute("default", "VACUUM users_user")
    empty_tables(UserChange)


def _update_all(keys: Sequence[Any]) -> None:
    statement = "UPDATE users_user SET is_staff = NOT is_staff WHERE id = ANY(%s)"
    _execute("default", statement, [keys])


def _change(keys: Sequence[Any]) -> None:
    """Give these users another name."""
    statement = "UPDATE users_user SET name = md5(random()::text) WHERE id = ANY(%s)"
    _execute("default", statement, [keys])


def _sample(number: int) -> list[Any]:
    """Return the ids of so many users, chosen at random."""
    from sharding.moves.servers import rows

    query = "SELECT id FROM users_user ORDER BY random() LIMIT %s"
    return [key for (key,) in rows("default", query, [number])]


def _execute(alias: str, statement: str, parameters: Sequence[Any] = ()) -> None:
    from sharding.moves.servers import execute

    execute(alias, statement, parameters)


def _print_rates(
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
    _print(name, pairs, f"at least {goal}", f"  {rates}")


def _print(name: str, values: Sequence[float], goal: str, more: str = "") -> None:
    spread = f"{min(values):.2f} to {max(values):.2f}"
    print(f"{name:48} {statistics.median(values):6.2f}  ({spread}; {goal}){more}", flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=3, help="counted runs of each way")
    parser.add_argument("--only", type=lambda text: text.split(","), help=", ".join(MEASUREMENTS))
    return parser.parse_args()


if __name__ == "__main__":
    main()
