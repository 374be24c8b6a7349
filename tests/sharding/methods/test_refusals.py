"""What docs/orm.md lists as refused is refused, before anything is sent; what it offers works."""

import re
from collections.abc import Callable
from typing import Any

from django.db import connections, transaction
from django.db.models import (
    Avg,
    Count,
    Exists,
    F,
    Max,
    OuterRef,
    QuerySet,
    Sum,
    TextField,
    Window,
)
from django.db.models.expressions import RawSQL
from django.db.models.fields.json import KeyTextTransform
from django.db.models.functions import Cast, Collate, Now, RowNumber

from sharding.errors import AcrossShardsRefused
from tests.sharding.methods import document
from tests.sharding.methods.world import ADA, BOB, SHARDS, WorldTestCase, plain
from users.models import Activity, Profile, User

profiles = Profile.objects.across_shards()
activities = Activity.objects.across_shards()
keyed = Profile.objects.filter(pk=ADA)
place = Window(RowNumber(), partition_by="profile", order_by="occurred_at")

# The first words of a row in the table -> what it speaks of.
REFUSED: dict[str, list[Callable[[], Any]]] = {
    "`union()`": [
        lambda: profiles.union(profiles),
        lambda: profiles.filter(plan="pro").intersection(profiles),
        lambda: profiles.difference(profiles),
        lambda: Profile.objects.filter(pk=ADA).union(Profile.objects.filter(pk=BOB)),
        lambda: keyed.values_list("pk").union(User.objects.values_list("pk")),
        lambda: profiles.union(profiles, all=True),
    ],
    "combining a queryset": [
        lambda: profiles | keyed,
        lambda: keyed & profiles,
        lambda: keyed ^ profiles,  # type: ignore[operator]
        lambda: profiles | Profile.objects.using("shard_1"),
        lambda: Profile.objects.using("shard_2") | Profile.objects.using("shard_1"),
        lambda: profiles | Profile.objects.across_shards(partial=True),
        lambda: Profile.objects.using("shard_1").union(Profile.objects.using("shard_2")),
    ],
    "`select_for_update()`": [
        lambda: profiles.select_for_update(),
        lambda: profiles.select_for_update().first(),
        lambda: profiles.select_for_update().get(pk__in=[ADA, BOB]),
    ],
    "`raw()`": [
        lambda: profiles.raw("SELECT 1"),
        lambda: profiles.extra(select={"one": "1"}),
        lambda: profiles.extra(where=["true"]),
        lambda: profiles.extra(tables=["users_activity"]),
        lambda: profiles.extra(order_by=["plan"]),
        lambda: profiles.annotate(x=RawSQL("1", [])),
        lambda: profiles.filter(bio=RawSQL("plan", [])),
        lambda: profiles.filter(
            Exists(Activity.objects.filter(profile=OuterRef("pk"), kind=RawSQL("'x'", [])))
        ),
    ],
    "a window function": [
        lambda: profiles.annotate(x=Window(RowNumber(), order_by="pk")),
        lambda: profiles.annotate(x=Window(RowNumber(), partition_by="plan")),
        lambda: profiles.annotate(x=Window(Count("pk"))).filter(x=1),
    ],
    "a subquery": [lambda: profiles.filter(Exists(Activity.objects.filter(kind="order")))],
    "`Count(distinct=True)`": [
        lambda: profiles.aggregate(Count("plan", distinct=True)),
        lambda: activities.aggregate(Sum("amount", distinct=True)),
        lambda: activities.aggregate(Avg("amount", distinct=True)),
    ],
    "aggregates other": [
        lambda: activities.aggregate(x=Max("amount") - Sum("amount")),
        lambda: activities.aggregate(x=Sum("amount", default=F("amount"))),
    ],
    "`aggregate()`": [
        lambda: profiles.order_by("pk")[:2].aggregate(Count("pk")),
        lambda: profiles.values("plan").distinct().aggregate(Count("plan")),
        lambda: profiles.values("plan").annotate(n=Count("pk")).aggregate(Sum("n")),
    ],
    "a filter on an aggregate": [
        lambda: profiles.values("plan").annotate(n=Count("pk")).filter(n__gt=1),
    ],
    "a filter on a window function": [
        lambda: activities.values("kind").annotate(x=place).filter(x=1).order_by("amount"),
        lambda: activities.annotate(x=place).filter(x=1).values("kind").annotate(Count("pk")),
    ],
    "order, `distinct()`": [
        lambda: profiles.order_by("settings"),
        lambda: profiles.values("settings").distinct(),
        lambda: profiles.values("settings").annotate(Count("pk")),
        lambda: profiles.order_by(Collate("plan", "en-x-icu")),
    ],
    "order, groups": [
        lambda: profiles.order_by(Now() - F("created_at")),
        lambda: profiles.aggregate(x=Max(Now() - F("created_at"))),
    ],
}

# What stands beside it, of querysets and with the same answer as of one database.
INSTEAD: list[Callable[[Any, Any], Any]] = [
    lambda p, a: (p.filter(plan="pro") | p.filter(plan="team")).order_by("pk"),
    lambda p, a: (p.filter(plan="free") & p.filter(country="CH")).order_by("pk"),
    lambda p, a: a.annotate(x=place).filter(x=1).order_by("pk"),
    lambda p, a: [len(set(p.values_list("plan", flat=True).distinct()))],
    lambda p, a: [a.aggregate(Max("amount"), Sum("amount"))],
    lambda p, a: p.values("plan").annotate(n=Count("pk")).order_by("plan"),
    lambda p, a: a.order_by(Cast("payload", TextField()), "pk"),
    lambda p, a: p.order_by(KeyTextTransform("theme", "settings"), "pk"),
    lambda p, a: p.order_by(Collate("plan", "C"), "pk"),
]


class RefusalTests(WorldTestCase):
    def test_the_table_lists_what_is_refused(self) -> None:
        section = document.PATH.read_text().partition("## What is refused")[2]
        table = section.partition("And with a key")[0]
        rows = re.findall(r"^\| (?!refused|---)(.*?) \| ", table, re.MULTILINE)
        self.assertEqual(len(rows), len(REFUSED))
        for row, beginning in zip(rows, REFUSED, strict=True):
            self.assertTrue(row.startswith(beginning), row)

    def test_each_is_refused_before_anything_is_sent(self) -> None:
        for name, calls in REFUSED.items():
            for number, call in enumerate(calls):
                refused = self.assertRaisesRegex(AcrossShardsRefused, "refused|needs one shard")
                with self.subTest(name, number=number), self.assert_touches(), refused:
                    list(call())

    def test_none_breaks_a_transaction(self) -> None:
        for name, calls in REFUSED.items():
            for number, call in enumerate(calls):
                with self.subTest(name, number=number):
                    with self.assertRaises(AcrossShardsRefused):
                        rows = call()
                        list(rows.iterator() if isinstance(rows, QuerySet) else rows)
                    broken = [alias for alias in SHARDS if connections[alias].needs_rollback]
                    self.assertEqual(broken, [])

    def test_what_to_write_instead(self) -> None:
        for number, build in enumerate(INSTEAD):
            with self.subTest(number):
                expected = list(build(plain(Profile), plain(Activity)))
                self.assertEqual(list(build(profiles, activities)), expected)

    def test_one_users_rows_are_locked(self) -> None:
        with transaction.atomic("shard_1"), self.assert_touches("shard_1"):
            locked = keyed.select_for_update().get()
        self.assertEqual(locked.pk, ADA)

    def test_the_empty_queryset_combines_with_any(self) -> None:
        nobody = Profile.objects.none()
        everybody = profiles.all()
        for combined in (nobody | everybody, everybody.all() | nobody, nobody.union(profiles)):
            with self.assert_touches(*SHARDS):
                self.assertEqual(len(combined), 6)
        for combined in (nobody & profiles, profiles & nobody):
            with self.assert_touches():
                self.assertEqual(len(combined), 0)
