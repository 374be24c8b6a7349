"""A demonstration: three shards become four under load. `make demo-grow`.

Starts servers of its own, fills them with users, lets people read and write, and moves a fair share
of the users to a fourth server meanwhile. Prints what these people noticed.
"""

import argparse
import os
import random
import threading
import time
import uuid
from dataclasses import dataclass, field

from benchmarks.harness import benchmark_databases

_FIRST_MAP = "shard_1=0-333,shard_2=334-666,shard_3=667-999"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=20_000)
    options = parser.parse_args()
    os.environ["SHARD_SLOTS"] = _FIRST_MAP
    print("Starting six servers: primary, analytics, and four shards, of which one is empty ...")
    with benchmark_databases(shards=4):
        from django.core.management import call_command

        keys = _fill(options.users)
        call_command("shards", "status")
        crowd = Crowd(keys)
        crowd.start()
        started = time.monotonic()
        try:
            call_command("shards", "rebalance", add=["shard_4"], no_progress=True)
        finally:
            crowd.stop()
        print(f"\nRebalanced in {time.monotonic() - started:.1f} s. Meanwhile, by four threads:")
        crowd.print()
        call_command("shards", "status")
        call_command("shards", "check")


def _fill(users: int) -> list[uuid.UUID]:
    from users.models import Activity, Profile, User

    accounts = [User(id=uuid.uuid4(), email=f"{number}@example.com") for number in range(users)]
    for start in range(0, users, 5000):
        batch = accounts[start : start + 5000]
        User.objects.bulk_create(batch)
        Profile.objects.bulk_create([Profile(user_id=each.pk) for each in batch])
        Activity.objects.bulk_create(
            [Activity(profile_id=each.pk, kind=kind) for each in batch for kind in ("a", "b")]
        )
    return [each.pk for each in accounts]


@dataclass
class Crowd:
    """People who read and write all the time, and what they noticed."""

    keys: list[uuid.UUID]
    waits: dict[str, list[float]] = field(default_factory=lambda: {"reads": [], "writes": []})
    counts: list[int] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    lost: int = 0

    def start(self) -> None:
        self.ended = threading.Event()
        jobs = (self._visit, self._visit, self._visit, self._count)
        self.threads = [
            threading.Thread(target=job, args=[number]) for number, job in enumerate(jobs)
        ]
        for thread in self.threads:
            thread.start()

    def stop(self) -> None:
        self.ended.set()
        for thread in self.threads:
            thread.join()

    def print(self) -> None:
        for kind, waits in self.waits.items():
            longest, p99 = max(waits), sorted(waits)[int(len(waits) * 0.99)]
            print(
                f"  {len(waits):7,} {kind:7} longest {longest * 1000:6.0f} ms, 99 of 100 within "
                f"{p99 * 1000:.0f} ms"
            )
        different = sorted(set(self.counts))
        print(f"  {len(self.counts):7,} counts of all users, each of them: {different}")
        print(f"  {len(self.errors):7,} errors {self.errors[:3] or ''}")
        print(f"  {self.lost:7,} writes that could not be read back\n")

    def _visit(self, number: int) -> None:
        from django.db import connections

        from users.models import Profile

        chance, mine = random.Random(number), self.keys[number::3]
        while not self.ended.wait(0.003):
            key, text = chance.choice(mine), str(chance.random())
            try:
                started = time.monotonic()
                Profile.objects.filter(user_id=key).update(bio=text)
                wrote = time.monotonic()
                found = Profile.objects.get(user_id=key).bio
            except Exception as error:
                self.errors.append(f"{type(error).__name__}: {error}")
                continue
            self.waits["writes"].append(wrote - started)
            self.waits["reads"].append(time.monotonic() - wrote)
            self.lost += found != text
        connections.close_all()

    def _count(self, number: int) -> None:
        from django.db import connections

        from users.models import Profile

        while not self.ended.wait(0.05):
            try:
                self.counts.append(Profile.objects.across_shards().count())
            except Exception as error:
                self.errors.append(f"{type(error).__name__}: {error}")
        connections.close_all()


if __name__ == "__main__":
    main()
