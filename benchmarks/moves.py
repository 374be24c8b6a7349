"""What a move costs: `python -m benchmarks.moves [--rows N] [--runs N] [--skip-guard]`.

First the guard: the same writes with it and without. Then a move of a range of slots, against
PostgreSQL's own initial copy of the same rows by a filtered publication, and what writers and
readers notice of it.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable, Sequence

from benchmarks.fence import compare_guard
from benchmarks.harness import benchmark_databases
from benchmarks.writers import Load, key_of

_MOVED = range(200, 334)  # of shard_1, to shard_4
_OTHERS = (400, 500, 800)  # slots of shard_2 and shard_3
_FIRST_MAP = "shard_1=0-333,shard_2=334-666,shard_3=667-999"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=300_000, help="that move, of two tables")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--guarded", type=int, default=20_000, help="rows for the guard's part")
    parser.add_argument("--skip-guard", action="store_true")
    parser.add_argument("--skip-moves", action="store_true")
    options = parser.parse_args()
    os.environ["SHARD_SLOTS"] = _FIRST_MAP
    with benchmark_databases(shards=4):
        if not options.skip_guard:
            for ratio, amount, unit in compare_guard(rows=options.guarded, runs=options.runs):
                print(ratio.table(amount=amount, unit=unit))
        if not options.skip_moves:
            _compare_moves(options.rows, options.runs)


def _compare_moves(rows: int, runs: int) -> None:
    fill(rows)
    native, moved = [], []
    for _ in range(runs):
        native.append(native_copy())
        moved.append(move("shard_1", "shard_4"))
        move("shard_4", "shard_1")
    alone = statistics.median(native)
    print(f"native filtered copy  {rows / alone:10,.0f} rows/s  ({alone:.2f} s, {runs} runs)")
    parts = ("its copying", "to ownership", "with cleaning")
    for what, times in zip(parts, zip(*moved, strict=True), strict=True):
        took = statistics.median(times)
        print(
            f"move, {what:14}{rows / took:9,.0f} rows/s  ({took:.2f} s)  ratio {alone / took:.2f}"
        )
    _compare_waits(runs)


def _compare_waits(runs: int) -> None:
    """What two writers notice: of nothing, of the native copy, and of a move."""
    quiet, copying, moving = Load(), Load(), Load()
    ways: list[tuple[str, Load, Callable[[], object]]] = [
        ("quiet", quiet, lambda: time.sleep(10)),
        ("native copy", copying, native_copy),
        ("move", moving, lambda: move("shard_1", "shard_4")),
    ]
    for _ in range(runs):
        for _, load, run in ways:
            with load.running([*_MOVED][:10], _OTHERS):
                run()
        move("shard_4", "shard_1")
    for name, load, _ in ways:
        print(f"{name}, to moved users: {_shown(load.moved)}; to others: {_shown(load.others)}")
    usual, p99 = _p99(quiet.others), _p99(moving.others)
    print(f"others during a move, over twice their usual 99th percentile ({usual * 1000:.1f} ms):")
    print(f"  99 of 100 {p99 / usual / 2:.2f}, the longest {max(moving.others) / usual / 2:.2f}")
    print(f"errors: {len(moving.errors)}  {moving.errors[:3] or ''}")


def fill(rows: int) -> None:
    """Store as many rows in the slots that move, and a few in others; one in five is a profile."""
    from users.models import Activity, Profile

    for start in range(0, rows // 5, 5000):
        numbers = range(start, min(start + 5000, rows // 5))
        keys = [key_of(_MOVED[n % len(_MOVED)]) for n in numbers] + [
            key_of(slot) for slot in range(0, 1000, 7)
        ]
        Profile.objects.bulk_create([Profile(user_id=k, bio="x" * 200) for k in keys])
        Activity.objects.bulk_create(
            [Activity(profile_id=k, kind="login", payload={"a": 1}) for k in keys for _ in "1234"]
        )


def move(source: str, target: str) -> tuple[float, float, float]:
    """Move the slots; return the seconds of the copying, of all until the target owned them, and
    until nothing was left on the source.
    """
    from sharding.moves import run
    from sharding.moves.copying import Progress

    reached: dict[str, float] = {}
    started = time.monotonic()

    def note(progress: Progress) -> None:
        reached.setdefault(progress.text, time.monotonic() - started)

    run.run(run.begin(source, target, _MOVED), note)
    copied = reached["catching up"] - reached["copying"]
    return copied, reached["owned"], time.monotonic() - started


def native_copy() -> float:
    """Return the seconds of PostgreSQL's own copy of the same rows, without anything around it."""
    from sharding.moves.servers import execute, replication_address, rows, value, wait_for
    from sharding.slot_sql import in_slots
    from sharding.tables import tables

    listed = ", ".join(f"{t.name} WHERE ({in_slots(t.slot, _MOVED).as_string()})" for t in tables())
    execute("shard_1", f"CREATE PUBLICATION native FOR TABLE {listed}")
    started = time.monotonic()
    address = replication_address("shard_1")
    execute(
        "shard_4",
        f"CREATE SUBSCRIPTION native CONNECTION '{address}' PUBLICATION native"
        f" WITH (binary = true)",
    )
    states = "SELECT bool_and(srsubstate = 'r') FROM pg_subscription_rel"
    wait_for(lambda: value("shard_4", states), "the copy", timeout=600)
    took = time.monotonic() - started
    execute("shard_4", "DROP SUBSCRIPTION native")
    execute("shard_1", "DROP PUBLICATION native")
    names = ", ".join(t.name for t in tables())
    execute(
        "shard_4",
        f"SET session_replication_role = replica; TRUNCATE {names}; RESET session_replication_role",
    )
    for alias in ("shard_1", "shard_4"):
        execute(alias, "CHECKPOINT")
    assert not rows("shard_4", "SELECT FROM users_profile LIMIT 1")
    return took


def _p99(waits: Sequence[float]) -> float:
    return sorted(waits)[int(len(waits) * 0.99)]


def _shown(waits: Sequence[float]) -> str:
    return f"longest {max(waits) * 1000:,.0f} ms, 99 of 100 within {_p99(waits) * 1000:,.1f} ms"


if __name__ == "__main__":
    main()
