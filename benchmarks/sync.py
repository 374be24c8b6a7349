"""The sync of accounts against other ways to copy them, and what it costs the primary.

    python -m benchmarks.sync [--users 1000000] [--runs 3] [--only first,full,…]

Each line is a ratio in one run, the median of several, with its goal beside it. Rates are of rows.
"""

import argparse
import os
from collections.abc import Callable, Sequence

from benchmarks.harness import Way, benchmark_databases, empty_tables, timed
from benchmarks.sync_accounts import change, execute, fill, print_line, print_rates, sample
from benchmarks.sync_trigger import trigger

_TWIN = "copied"  # a table like that of the copies, for the COPY pipe where those must stay
_FEW = 10_000  # users
_CHANGED = 1_000  # of them, or of all
_SLOW_ROWS = 50_000  # for bulk_create


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
    print_rates("first load / COPY pipe", load, pipe, users, runs=runs, goal=0.85)


def native(users: int, runs: int) -> None:
    """A first load over the initial copy of PostgreSQL's logical replication."""
    from benchmarks.sync_rivals import native_copy, no_native

    fill(users)
    copy, load = Way("", native_copy, before=no_native), Way("", _load, before=_forget)
    print_rates("first load / logical replication", load, copy, users, runs=runs, goal=1.0)
    no_native()


def django(users: int, runs: int) -> None:
    """A first load over bulk_create() of fewer rows."""
    from benchmarks.sync_rivals import bulk_create

    fill(users)
    rows = min(users, _SLOW_ROWS)
    bulk = Way("", lambda: bulk_create(rows), before=_forget)
    load = Way("", _load, before=_forget)
    name = "first load / bulk_create(update_conflicts)"
    print_rates(name, load, bulk, users, rows, runs=runs, goal=12)


def dlt(users: int, runs: int) -> None:
    """A first load over dlt."""
    from benchmarks.sync_rivals import dlt_replace

    name = "first load / dlt (pyarrow, replace)"
    if not (replace := dlt_replace()):
        print(f"{name}: not installed, see requirements-bench.txt")
        return
    fill(users)
    load = Way("", _load, before=_forget)
    print_rates(name, load, Way("", replace), users, runs=runs, goal=6)


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
    print_line(f"{_CHANGED:,} changed among {users:,} / among {_FEW:,}", pairs, "at most 1.5")
    print_line("seconds for them", many, "under 0.5")


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
        change(sample(changed))
        print_line(f"MiB that {name} takes", [peak_growth(options)], "at most 64")


def follow(users: int, runs: int) -> None:
    """From a commit on the primary to analytics, by --follow under load."""
    from benchmarks.sync_process import followed

    fill(users)
    _load()
    rate, waits = followed(sample(min(users, 10_000)))
    print_line(f"seconds to analytics, {rate:.0f} changes/s", waits, "median under 1")


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
    execute("analytics", f"CREATE TABLE IF NOT EXISTS {_TWIN} (LIKE {TARGET} INCLUDING ALL)")
    keys = sample(changed)

    def prepare() -> None:
        execute("analytics", f"TRUNCATE {_TWIN}")
        empty_tables()

    pipe = Way("", lambda: copy_pipe(_TWIN))
    again = Way("", lambda: _load(full=True), before=lambda: change(keys))
    print_rates(name, again, pipe, users, runs=runs, goal=goal, prepare=prepare)


def _increments(users: int, runs: int) -> Sequence[float]:
    fill(users)
    _load()
    keys = sample(_CHANGED)
    seconds = []
    for _ in range(runs + 1):
        change(keys)
        seconds.append(timed(_load))
    return seconds[1:]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=3, help="counted runs of each way")
    parser.add_argument("--only", type=lambda text: text.split(","), help=", ".join(MEASUREMENTS))
    return parser.parse_args()


if __name__ == "__main__":
    main()
