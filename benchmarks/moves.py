"""What a move costs: `python -m benchmarks.moves [--rows N] [--runs N] [--skip-guard]`.

First the guard: the same writes with it and without. Then a move of a range of slots, against
PostgreSQL's own initial copy of the same rows by a filtered publication, and what writers and
readers notice of it.
"""

import argparse
import os
import statistics
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from benchmarks.fence import compare_guard
from benchmarks.harness import benchmark_databases

_MOVED = range(200, 334)  # of shard_1, to shard_4
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
    quiet, copying, during = Load(), Load(), Load()
    with quiet.running():
        time.sleep(5)
    with copying.running():
        native_copy()
    with during.running():
        move("shard_1", "shard_4")
    alone = statistics.median(native)
    print(f"native filtered copy  {rows / alone:10,.0f} rows/s  ({alone:.2f} s, {runs} runs)")
    for what, times in zip(
        ("its copying", "all, to ownership"), zip(*moved, strict=True), strict=True
    ):
        took = statistics.median(times)
        print(
            f"move, {what:17}{rows / took:9,.0f} rows/s  ({took:.2f} s)  ratio {alone / took:.2f}"
        )
    for load, name in ((quiet, "quiet"), (copying, "native copy"), (during, "move")):
        print(f"{name}, to moved users: {_shown(load.moved)}; to others: {_shown(load.others)}")
    print(f"errors: {len(during.errors)}  {during.errors[:3] or ''}")


def fill(rows: int) -> None:
    """Store as many rows in the slots that move, and a few in others; one in five is a profile."""
    from users.models import Activity, Profile

    for start in range(0, rows // 5, 5000):
        numbers = range(start, min(start + 5000, rows // 5))
        keys = [_key(_MOVED[n % len(_MOVED)]) for n in numbers] + [
            _key(slot) for slot in range(0, 1000, 7)
        ]
        Profile.objects.bulk_create([Profile(user_id=k, bio="x" * 200) for k in keys])
        Activity.objects.bulk_create(
            [Activity(profile_id=k, kind="login", payload={"a": 1}) for k in keys for _ in "1234"]
        )


def move(source: str, target: str) -> tuple[float, float]:
    """Move the slots; return the seconds of the copying, and of all until the target owned them."""
    from sharding.moves import run
    from sharding.moves.copying import Progress

    reached: dict[str, float] = {}
    started = time.monotonic()

    def note(progress: Progress) -> None:
        reached.setdefault(progress.text, time.monotonic() - started)

    run.run(run.begin(source, target, _MOVED), note)
    return reached["catching up"] - reached["copying"], reached["owned"]


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


@dataclass
class Load:
    """Two writers, one to users that move and one to others, and how long each write took."""

    moved: list[float] = field(default_factory=list)
    others: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @contextmanager
    def running(self) -> Iterator[None]:
        stop = threading.Event()
        jobs = [(self.moved, [*_MOVED][:10]), (self.others, [400, 500, 800])]
        threads = [threading.Thread(target=self._write, args=[*job, stop]) for job in jobs]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            for thread in threads:
                thread.join()

    def _write(self, waits: list[float], slots: Sequence[int], stop: threading.Event) -> None:
        from django.db import connections

        from users.models import Profile

        profiles = [Profile(user_id=_key(slot)) for slot in slots]
        for profile in profiles:
            profile.save()
        number = 0
        while not stop.is_set():
            profile = profiles[number % len(profiles)]
            number += 1
            started = time.monotonic()
            try:
                profile.save()
            except Exception as error:
                self.errors.append(f"{type(error).__name__}: {error}")
            waits.append(time.monotonic() - started)
            stop.wait(0.005)
        connections.close_all()


def _key(slot: int) -> uuid.UUID:
    return uuid.UUID(f"{slot:08x}-{uuid.uuid4().hex[8:]}")


def _shown(waits: Sequence[float]) -> str:
    p99 = sorted(waits)[int(len(waits) * 0.99)]
    return f"longest {max(waits) * 1000:,.0f} ms, 99 of 100 within {p99 * 1000:,.0f} ms"


if __name__ == "__main__":
    main()
