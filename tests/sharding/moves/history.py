"""Writers and readers that hammer users while these move, and the check of what they were told.

Each key has one writer, which gives its row ever higher numbers: so a reader must see at least the
highest number that was acknowledged before it asked, and at the end the row has the last one, or
one whose answer was lost on the way.
"""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from uuid import UUID, uuid4

from django.db import DatabaseError, connections, transaction

import sharding
from sharding import get_shard_for_user_id
from sharding.errors import SlotMoved
from sharding.hashing import slot_for
from users.models import Activity, Profile

__all__ = ["History", "load"]

_ISOLATION = ("READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE")


@dataclass
class History:
    """What was acknowledged, and what went wrong."""

    keys: Sequence[UUID]
    acknowledged: dict[UUID, int] = field(default_factory=dict)  # the highest number
    attempted: dict[UUID, int] = field(default_factory=dict)
    activities: dict[UUID, bool] = field(default_factory=dict)  # id -> acknowledged, or unclear
    deleted: set[UUID] = field(default_factory=set)  # activities, and that was acknowledged
    errors: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    reads: int = 0
    refused: int = 0  # raw writes through an old map

    def violations_at_the_end(self) -> list[str]:
        """Return what is not as it was acknowledged, now that all is quiet."""
        found = [*self.violations]
        stored = dict(Profile.objects.across_shards().values_list("user_id", "bio"))
        for key in self.keys:
            low, high = self.acknowledged.get(key, 0), self.attempted.get(key, 0)
            if not low <= int(stored.get(key, -1)) <= high:
                found.append(f"{key} has {stored.get(key)}, not {low} to {high}")
        numbers = Counter(Activity.objects.across_shards().values_list("pk", flat=True))
        for pk, sure in self.activities.items():
            if numbers[pk] > 1 or (sure and not numbers[pk]):
                found.append(f"activity {pk} exists {numbers[pk]} times")
        found += [f"activity {pk} was deleted and exists" for pk in self.deleted if numbers[pk]]
        return found


def load(history: History, *, may_fail: bool) -> Callable[[], None]:
    """Begin to write and read; return what ends it. `may_fail` while servers are killed."""
    stop = threading.Event()
    half = len(history.keys) // 2
    jobs: list[Callable[[], None]] = [
        lambda: _write(history, history.keys[:half], stop, may_fail),
        lambda: _write(history, history.keys[half:], stop, may_fail),
        lambda: _read(history, stop, may_fail),
        lambda: _read_all(history, stop, may_fail),
        lambda: _watch_owners(history, stop, may_fail),
        lambda: _write_by_an_old_map(history, stop),
    ]
    threads = [threading.Thread(target=_closing, args=[job, history], daemon=True) for job in jobs]
    for thread in threads:
        thread.start()

    def end() -> None:
        stop.set()
        for thread in threads:
            thread.join(timeout=60)

    return end


def _closing(job: Callable[[], None], history: History) -> None:
    try:
        job()
    except Exception as error:
        history.violations.append(f"{type(error).__name__}: {error}")
    finally:
        connections.close_all()


def _write(history: History, keys: Sequence[UUID], stop: threading.Event, may_fail: bool) -> None:
    chance = random.Random(str(keys[0]))
    while not stop.is_set():
        key = chance.choice(keys)
        number = history.attempted.get(key, 0) + 1
        history.attempted[key] = number
        activity = uuid4()
        ways = (_save, _update, _bulk_update, _transaction, _insert, _delete)
        started = time.monotonic()
        way = chance.choice(ways)
        if way in (_transaction, _insert):
            history.activities[activity] = False
        try:
            way(key, number, activity, chance)
        except DatabaseError as error:
            _note(history, error, may_fail)
            continue
        history.waits.append(time.monotonic() - started)
        history.acknowledged[key] = number
        if activity in history.activities:
            history.activities[activity] = True
        if way is _delete:
            history.deleted.add(activity)


def _save(key: UUID, number: int, activity: UUID, chance: random.Random) -> None:
    Profile(user_id=key, bio=str(number)).save()


def _update(key: UUID, number: int, activity: UUID, chance: random.Random) -> None:
    Profile.objects.filter(user_id=key).update(bio=str(number))


def _bulk_update(key: UUID, number: int, activity: UUID, chance: random.Random) -> None:
    Profile.objects.bulk_update([Profile(user_id=key, bio=str(number))], ["bio"])


def _transaction(key: UUID, number: int, activity: UUID, chance: random.Random) -> None:
    level = chance.choice(_ISOLATION)
    here = sharding.atomic(key)

    def write() -> None:
        with connections[get_shard_for_user_id(key)].cursor() as cursor:
            cursor.execute(f"SET TRANSACTION ISOLATION LEVEL {level}")
        profile = Profile.objects.get(user_id=key)
        profile.bio = str(number)
        profile.save()
        Activity.objects.create(pk=activity, profile_id=key, kind="x")

    here.run(write)


def _insert(key: UUID, number: int, activity: UUID, chance: random.Random) -> None:
    Activity.objects.bulk_create([Activity(pk=activity, profile_id=key, kind="x")])
    Profile.objects.filter(user_id=key).update(bio=str(number))
    Activity.objects.filter(profile=key, kind="y").delete()


def _delete(key: UUID, number: int, activity: UUID, chance: random.Random) -> None:
    Activity.objects.create(pk=activity, profile_id=key, kind="x")
    Profile.objects.filter(user_id=key).update(bio=str(number))
    Activity.objects.filter(profile=key, pk=activity).delete()


def _read(history: History, stop: threading.Event, may_fail: bool) -> None:
    chance = random.Random(1)
    while not stop.is_set():
        key = chance.choice(history.keys)
        known = history.acknowledged.get(key, 0)
        started = time.monotonic()
        try:
            found = int(Profile.objects.get(user_id=key).bio)
        except DatabaseError as error:
            _note(history, error, may_fail)
            continue
        except Profile.DoesNotExist:
            history.violations.append(f"{key} was not found")
            continue
        history.waits.append(time.monotonic() - started)
        history.reads += 1
        if found < known:
            history.violations.append(f"{key}: read {found} after {known} was acknowledged")


def _read_all(history: History, stop: threading.Event, may_fail: bool) -> None:
    everybody = Profile.objects.across_shards()
    while not stop.is_set():
        known = dict(history.acknowledged)
        try:
            counted = everybody.all().count()
            found = list(everybody.values_list("pk", "bio"))
        except DatabaseError as error:
            _note(history, error, may_fail)
            continue
        history.reads += 1
        if [counted, len(found), len(dict(found))] != [len(history.keys)] * 3:
            history.violations.append(f"a fan-out counted {counted} and listed {len(found)} users")
        for key, number in found:
            if int(number) < known.get(key, 0):
                history.violations.append(f"{key}: a fan-out read {number} after {known[key]}")


def _watch_owners(history: History, stop: threading.Event, may_fail: bool) -> None:
    """Two shards never take writes to a slot. Looked at twice: a move may come in between."""
    slots = sorted({slot_for(key) for key in history.keys})
    while not stop.is_set():
        try:
            first, there, again = (
                _owned(alias, slots) for alias in ("shard_1", "shard_2", "shard_1")
            )
        except DatabaseError as error:
            _note(history, error, may_fail)
            continue
        if twice := first & there & again:
            history.violations.append(f"the slots {sorted(twice)} had two owners")
        time.sleep(0.005)


def _owned(alias: str, slots: Sequence[int]) -> set[int]:
    query = "SELECT slot FROM sharding_slotowner WHERE state = 'owned' AND slot = ANY(%s)"
    with connections[alias].cursor() as cursor:
        cursor.execute(query, [list(slots)])
        return {slot for (slot,) in cursor.fetchall()}


def _write_by_an_old_map(history: History, stop: threading.Event) -> None:
    """Raw SQL on the shard that owned the users at first: it works or is refused, no row strays."""
    chance = random.Random(2)
    first = {key: get_shard_for_user_id(key) for key in history.keys}
    while not stop.is_set():
        key = chance.choice(history.keys)
        try:
            with transaction.atomic(first[key]), connections[first[key]].cursor() as cursor:
                cursor.execute("UPDATE users_profile SET plan = 'pro' WHERE user_id = %s", [key])
                cursor.execute(
                    "INSERT INTO users_activity (id, user_id, kind, amount, payload, occurred_at)"
                    " VALUES (gen_random_uuid(), %s, 'y', 0, '{}', now())",
                    [key],
                )
        except SlotMoved:
            history.refused += 1
        except DatabaseError:
            connections[first[key]].close()
        time.sleep(0.001)


def _note(history: History, error: DatabaseError, may_fail: bool) -> None:
    if not may_fail:
        history.errors.append(f"{type(error).__name__}: {error}")
    for alias in connections:
        connections[alias].close_if_unusable_or_obsolete()
    time.sleep(0.01)
