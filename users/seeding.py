"""Invented activities for profiles that have none, so that there is something to see."""

import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from math import log
from uuid import UUID

from django.db import connections, transaction
from django.db.models import Exists, Field, OuterRef, QuerySet
from django.utils import timezone
from psycopg.sql import Identifier

from sharding import conf, get_shard_for_user_id
from sharding.following import follow
from users.importing.staging import copy_in
from users.models import Activity, Profile

__all__ = ["Seeded", "count_unseeded", "seed_activities"]

_BATCH = 1_000  # profiles in a transaction
_FIELDS = ("id", "profile", "kind", "amount", "payload", "occurred_at")
_KINDS = {"login": 50, "comment": 25, "purchase": 15, "upload": 10}
_DEVICES = ("phone", "laptop", "tablet")
_ITEMS = ("book", "camera", "chair", "coffee", "lamp", "record", "scarf", "teapot")


@dataclass
class Seeded:
    """How many profiles got activities or were left without by chance, and how many activities."""

    profiles: int = 0
    activities: int = 0


def count_unseeded() -> int:
    """Return how many profiles, on all shards, have no activity."""
    return sum(_unseeded(shard).count() for shard in conf.shards())


def seed_activities(
    *,
    per_user: float = 4,
    seed: int = 1,
    now: datetime | None = None,
    advance: Callable[[int], object] = lambda profiles: None,
) -> Seeded:
    """Give each profile without activities some, `per_user` on average.

    They lie between `created_at` and `now`. The same seed gives a person the same number and kinds
    again, so a run that broke off can be repeated; `advance` is told how many profiles each batch
    had. Raises Django's database errors, with all batches before the one in hand stored.
    """
    invent = partial(_lines, per_user=per_user, seed=seed, now=now or timezone.now())
    seeded = Seeded()
    for shard in conf.shards():
        last = UUID(int=0)
        while profiles := _next_profiles(shard, after=last):
            seeded.activities += follow(partial(_seed, shard, profiles, invent))
            last = profiles[-1]
            seeded.profiles += len(profiles)
            advance(len(profiles))
    return seeded


def _unseeded(shard: str) -> "QuerySet[Profile]":
    activities = Activity.objects.using(shard).filter(profile=OuterRef("pk"))
    return Profile.objects.using(shard).filter(~Exists(activities))


def _next_profiles(shard: str, *, after: UUID) -> list[UUID]:
    found = _unseeded(shard).filter(pk__gt=after).order_by("pk")
    return list(found.values_list("pk", flat=True)[:_BATCH])


def _seed(shard: str, keys: Sequence[UUID], invent: Callable[[Profile], Iterator[str]]) -> int:
    with transaction.atomic(using=shard):
        lines = [line for profile in _locked(shard, keys) for line in invent(profile)]
        _store(shard, lines)
    return len(lines)


def _locked(shard: str, keys: Sequence[UUID]) -> list[Profile]:
    """Return the profiles, locked so that nobody deletes or seeds them meanwhile."""
    found = _unseeded(shard).filter(pk__in=keys).order_by("pk")
    locked = found.select_for_update(of=("self",), no_key=True).only("user_id", "created_at")
    # While a slot moves, its rows stand on two shards.
    return [profile for profile in locked if get_shard_for_user_id(profile.pk) == shard]


def _store(shard: str, lines: Sequence[str]) -> None:
    fields = [Activity._meta.get_field(name) for name in _FIELDS]
    columns = [field.column for field in fields if isinstance(field, Field) and field.column]
    copy_in(connections[shard], Identifier(Activity._meta.db_table), columns, lines)


def _lines(profile: Profile, *, per_user: float, seed: int, now: datetime) -> Iterator[str]:
    """Yield a profile's activities as lines of COPY's text format."""
    chance = random.Random(f"{seed}:{profile.pk}")  # noqa: S311  repeatable, and no secret
    span = now - profile.created_at
    for _ in range(_number(chance, per_user) if span > timedelta() else 0):
        key = UUID(int=chance.getrandbits(128), version=4)
        (kind,) = chance.choices(list(_KINDS), list(_KINDS.values()))
        amount, payload = _details(kind, chance)
        occurred = profile.created_at + span * chance.random()
        texts = (str(key), str(profile.pk), kind, amount, json.dumps(payload), occurred.isoformat())
        yield "\t".join(texts)


def _number(chance: random.Random, mean: float) -> int:
    """Choose a number of which many are small and few are large, `mean` on average."""
    # A geometric distribution, whose mean is exact: (1 - p) / p with p = 1 / (1 + mean).
    return int(log(1 - chance.random()) / log(mean / (1 + mean))) if mean > 0 else 0


def _details(kind: str, chance: random.Random) -> tuple[str, dict[str, object]]:
    """Choose what belongs to a kind: an amount and a payload."""
    if kind == "purchase":
        return f"{chance.lognormvariate(3, 0.9):.2f}", {"item": chance.choice(_ITEMS)}
    if kind == "upload":
        return "0", {"bytes": chance.randrange(1_000, 20_000_000)}
    if kind == "comment":
        return "0", {"length": chance.randrange(5, 800)}
    return "0", {"device": chance.choice(_DEVICES)}
