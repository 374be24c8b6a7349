"""Subqueries: where one shard holds all rows they can match they work, elsewhere they are refused.

What works is compared with one database; what would not, with a key in the outer query or without,
is refused before anything is sent.
"""

from collections.abc import Callable
from typing import Any

from django.db.models import (
    Case,
    Count,
    Exists,
    FilteredRelation,
    OuterRef,
    Q,
    Subquery,
    Value,
    When,
    Window,
)
from django.db.models.functions import Coalesce, RowNumber

from sharding import use_shard
from sharding.errors import AcrossShardsRefused
from tests.sharding.methods.world import ADA, BOB, DEE, WorldTestCase, plain
from users.models import Activity, Profile

Build = Callable[[Any, Any], Any]  # of profiles and activities

# Tied to the outer row, or by their own key on its shard.
RIGHT: list[tuple[str, Build]] = [
    ("exists", lambda p, a: p.filter(Exists(a.filter(profile=OuterRef("pk"), kind="order")))),
    ("not exists", lambda p, a: p.filter(~Exists(a.filter(profile=OuterRef("user_id"))))),
    ("exists, keys turned", lambda p, a: p.filter(Exists(a.filter(profile_id=OuterRef("pk"))))),
    ("key in keys", lambda p, a: p.filter(pk__in=a.filter(kind="order").values("profile"))),
    ("key not in keys", lambda p, a: p.exclude(pk__in=a.filter(kind="order").values("profile"))),
    ("key in Subquery", lambda p, a: p.filter(pk__in=Subquery(a.values("profile")))),
    ("key in grouped keys", lambda p, a: p.filter(pk__in=busy(a))),
    ("key in profiles", lambda p, a: a.filter(profile__in=p.filter(country="CH"))),
    ("row in rows", lambda p, a: a.filter(pk__in=a.filter(kind="order"))),
    ("row in rows of a join", lambda p, a: a.filter(pk__in=a.filter(profile__country="CH"))),
    (
        "the same row",
        lambda p, a: a.filter(Exists(a.filter(pk=OuterRef("pk"), kind="order"))),
    ),
    (
        "annotation",
        lambda p, a: p.annotate(
            last=Subquery(
                a.filter(profile=OuterRef("pk")).order_by("-occurred_at").values("kind")[:1]
            )
        ).filter(last="order"),
    ),
    (
        "count of the own rows",
        lambda p, a: p.annotate(
            n=Subquery(
                a.filter(profile=OuterRef("pk"))
                .order_by()
                .values("profile")
                .annotate(n=Count("pk"))
                .values("n")
            )
        ).filter(n__gt=1),
    ),
    (
        "a subquery in a subquery",
        lambda p, a: p.filter(
            Exists(
                a.filter(
                    Exists(p.filter(pk=OuterRef("profile"), country="CH")), profile=OuterRef("pk")
                )
            )
        ),
    ),
    (
        "a union of tied ones",
        lambda p, a: p.filter(
            Exists(
                a.filter(profile=OuterRef("pk"), kind="order").union(
                    a.filter(profile=OuterRef("pk"), amount__lt=1)
                )
            )
        ),
    ),
    ("excluding a joined row", lambda p, a: p.exclude(activities__kind="order")),
    ("nothing", lambda p, a: p.filter(pk__in=a.none().values("profile"))),
]

# One shard would see its own rows only.
WRONG: list[tuple[str, Build]] = [
    ("exists", lambda p, a: p.filter(Exists(a.filter(kind="order")))),
    ("exists, tied by a name", lambda p, a: p.filter(Exists(p.filter(plan=OuterRef("plan"))))),
    ("exists, or tied", lambda p, a: p.filter(Exists(either(a)))),
    ("exists, not tied", lambda p, a: p.filter(Exists(a.exclude(profile=OuterRef("pk"))))),
    ("in names", lambda p, a: p.filter(plan__in=p.filter(country="CH").values("plan"))),
    ("equal", lambda p, a: p.filter(plan=Subquery(p.filter(country="FR").values("plan")[:1]))),
    (
        "more than",
        lambda p, a: a.filter(amount__gt=Subquery(a.order_by("amount").values("amount")[:1])),
    ),
    (
        "among values",
        lambda p, a: p.filter(plan__in=["pro", Subquery(p.order_by("pk").values("plan")[:1])]),
    ),
    (
        "range",
        lambda p, a: a.filter(
            amount__range=[0, Subquery(a.order_by("-amount").values("amount")[:1])]
        ),
    ),
    ("the first keys", lambda p, a: p.filter(pk__in=a.order_by("amount").values("profile")[:2])),
    ("the first of each", lambda p, a: p.filter(pk__in=first_of_each_plan(p))),
    ("ranked", lambda p, a: p.filter(pk__in=ranked(a))),
    (
        "a union, one of which is not tied",
        lambda p, a: p.filter(
            Exists(a.filter(profile=OuterRef("pk")).union(a.filter(kind="order")))
        ),
    ),
    (
        "a union of keys and others",
        lambda p, a: p.filter(pk__in=a.values("profile").union(a.values("pk"))),
    ),
    ("annotation", lambda p, a: p.annotate(any=Exists(a.filter(kind="order")))),
    (
        "in a function",
        lambda p, a: p.annotate(
            x=Coalesce(Subquery(p.order_by("created_at").values("bio")[:1]), Value(""))
        ),
    ),
    (
        "in a case",
        lambda p, a: p.annotate(
            x=Case(When(Exists(a.filter(kind="order")), then=Value(1)), default=Value(0))
        ),
    ),
    (
        "in an aggregate",
        lambda p, a: p.annotate(
            n=Count("activities", filter=Q(activities__kind__in=a.values("kind")))
        ),
    ),
    ("order_by", lambda p, a: p.order_by(Exists(a.filter(kind="order")), "pk")),
    (
        "in a subquery that is tied",
        lambda p, a: p.filter(
            Exists(a.filter(profile=OuterRef("pk"), kind__in=a.order_by("kind").values("kind")[:1]))
        ),
    ),
    (
        "in a filtered relation",
        lambda p, a: p.annotate(
            some=FilteredRelation("activities", condition=Q(Exists(a.filter(kind="order"))))
        ).filter(some__amount__gt=0),
    ),
    ("in OR", lambda p, a: p.filter(Q(plan="pro") | Exists(a.filter(kind="order")))),
    ("all rows", lambda p, a: p.filter(Exists(a.all()))),
]


def busy(activities: Any) -> Any:
    counted = activities.order_by().values("profile").annotate(n=Count("pk"))
    return counted.filter(n__gt=1).values("profile")


def either(activities: Any) -> Any:
    return activities.filter(Q(profile=OuterRef("pk")) | Q(kind="order"))


def first_of_each_plan(profiles: Any) -> Any:
    return profiles.order_by("plan", "created_at").distinct("plan").values("pk")


def ranked(activities: Any) -> Any:
    place = Window(RowNumber(), order_by="occurred_at")
    return activities.annotate(place=place).filter(place__lte=2).values("profile")


class RightTests(WorldTestCase):
    def test_across_shards(self) -> None:
        for name, build in RIGHT:
            with self.subTest(name):
                expected = list(build(plain(Profile), plain(Activity)))
                self.assertTrue(len(expected) > 0 or name == "nothing")
                queryset = build(Profile.objects.across_shards(), Activity.objects.across_shards())
                self.assertCountEqual(list(queryset), expected)

    def test_inner_querysets_need_not_say_across_shards(self) -> None:
        for name, build in RIGHT[:2]:
            with self.subTest(name):
                queryset = build(Profile.objects.across_shards(), Activity.objects.all())
                expected = build(plain(Profile), plain(Activity))
                self.assertCountEqual(list(queryset), list(expected))

    def test_with_a_key(self) -> None:
        for name, build in RIGHT[:7]:
            with self.subTest(name):
                queryset = build(Profile.objects.filter(pk=ADA), Activity.objects.all())
                expected = list(build(plain(Profile).filter(pk=ADA), plain(Activity)))
                with self.assert_touches("shard_1", times=1):
                    self.assertCountEqual(list(queryset), expected)

    def test_of_a_neighbour(self) -> None:
        orders = Activity.objects.filter(profile=DEE, kind="order")
        for queryset in (
            Profile.objects.filter(Exists(orders), pk=ADA),
            Profile.objects.filter(pk=ADA).annotate(some=Exists(orders)).filter(some=True),
            Activity.objects.filter(profile=ADA, kind__in=orders.values("kind")).order_by("pk"),
        ):
            with self.assert_touches("shard_1", times=1):
                self.assertTrue(list(queryset))


class WrongTests(WorldTestCase):
    def test_across_shards(self) -> None:
        for name, build in WRONG:
            queryset = build(Profile.objects.across_shards(), Activity.objects.across_shards())
            self.assert_refused(name, queryset)

    def test_with_a_key(self) -> None:
        for name, build in WRONG:
            queryset = build(Profile.objects.all(), Activity.objects.all())
            key = "pk" if queryset.model is Profile else "profile"
            self.assert_refused(name, queryset.filter(**{key: ADA}))

    def assert_refused(self, name: str, queryset: Any) -> None:
        for read in (list, lambda q: q.count(), lambda q: q.exists(), lambda q: q.first()):
            refused = self.assertRaisesMessage(AcrossShardsRefused, "may match rows of other")
            with self.subTest(name), self.assert_touches(), refused:
                read(queryset)

    def test_a_users_own_subquery_sees_no_other_users(self) -> None:
        """A count of 3 instead of 8, which nobody would notice."""
        total = Activity.objects.order_by().annotate(one=Value(1)).values("one")
        counted = Subquery(total.annotate(n=Count("pk")).values("n"))
        with self.assertRaises(AcrossShardsRefused), self.assert_touches():
            Profile.objects.annotate(n=counted).get(pk=ADA)

    def test_a_neighbour_of_another_shard(self) -> None:
        orders = Activity.objects.filter(profile=BOB)
        for queryset in (
            Profile.objects.filter(Exists(orders), pk=ADA),
            Profile.objects.filter(Exists(orders), pk__in=[ADA, BOB]),
            Profile.objects.across_shards().filter(Exists(orders)),
        ):
            with self.assertRaises(AcrossShardsRefused), self.assert_touches():
                list(queryset)

    def test_one_shard_named_by_hand(self) -> None:
        """`using` means the rows that are there; a named shard in a subquery does as well."""
        on_2 = Activity.objects.using("shard_2")
        with self.assert_touches("shard_2"):
            self.assertEqual(
                len(Profile.objects.using("shard_2").filter(Exists(on_2.filter(kind="order")))), 2
            )
        with self.assert_touches("shard_2"):
            kinds = on_2.values("kind")
            self.assertEqual(Activity.objects.filter(profile=BOB, kind__in=kinds).count(), 2)
        for queryset in (
            Profile.objects.across_shards().filter(pk__in=on_2.values("profile")),
            Profile.objects.filter(pk=ADA, pk__in=on_2.values("profile")),
        ):
            with self.assertRaises(AcrossShardsRefused), self.assert_touches():
                list(queryset)

    def test_inside_use_shard(self) -> None:
        orders = Activity.objects.filter(kind="order")
        with use_shard("shard_2"), self.assertRaises(AcrossShardsRefused):
            list(Profile.objects.filter(Exists(orders)))
        with use_shard("shard_2"), self.assert_touches("shard_2"):
            tied = orders.filter(profile=OuterRef("pk"))
            self.assertEqual([row.pk for row in Profile.objects.filter(Exists(tied))], [BOB])
