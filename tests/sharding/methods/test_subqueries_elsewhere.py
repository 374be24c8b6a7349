"""Subqueries of other databases, and in what is written."""

from django.db.models import (
    Count,
    Exists,
    F,
    Max,
    OuterRef,
    Q,
    Subquery,
    Sum,
    Value,
)
from django.db.models.functions import Coalesce

from sharding.errors import AcrossShardsRefused
from tests.sharding.methods.world import ADA, CY, SHARDS, WorldTestCase, plain
from users.models import Activity, Profile, User


class OtherDatabaseTests(WorldTestCase):
    """Rows of the primary and of a shard meet in Python only."""

    def test_of_the_primary(self) -> None:
        users, profiles = User.objects.all(), Profile.objects.all()
        for name, queryset in (
            ("in", lambda: profiles.filter(pk=ADA, pk__in=users.values("id"))),
            ("exists", lambda: profiles.filter(Exists(users.filter(id=OuterRef("pk"))), pk=ADA)),
            ("across", lambda: profiles.across_shards().filter(pk__in=users.values("id"))),
            ("on the primary", lambda: users.filter(id__in=profiles.filter(pk=ADA).values("pk"))),
            ("its Subquery", lambda: users.filter(id__in=Subquery(profiles.values("pk")))),
            ("its Exists", lambda: users.filter(Exists(profiles.filter(pk=OuterRef("id"))))),
            ("its annotation", lambda: users.annotate(x=Exists(profiles.filter(pk=ADA)))),
            ("its order", lambda: users.order_by(Exists(profiles.filter(pk=ADA)))),
        ):
            refused = self.assertRaisesMessage(AcrossShardsRefused, "Evaluate it first")
            with self.subTest(name), self.assert_touches(), refused:
                list(queryset())

    def test_values_instead(self) -> None:
        user = User.objects.create_user("ada@example.com")
        with self.assert_touches("default"):
            ids = list(User.objects.values_list("id", flat=True))
        self.assertEqual(Profile.objects.filter(pk__in=ids).count(), 1)
        self.assertEqual(ids, [user.id])


class WriteTests(WorldTestCase):
    """update() and aggregate() are given expressions too."""

    def test_update_with_a_tied_subquery(self) -> None:
        for profiles, activities, on in (
            (plain(Profile), plain(Activity), None),
            (Profile.objects.across_shards(), Activity.objects.all(), SHARDS),
        ):
            newest = activities.filter(profile=OuterRef("pk")).order_by("-occurred_at")
            values = {"bio": Coalesce(Subquery(newest.values("kind")[:1]), Value("none"))}
            if on:
                with self.assert_touches(*on, times=1):
                    self.assertEqual(profiles.update(**values), 6)
            else:
                profiles.update(**values)
        self.assertCountEqual(
            Profile.objects.across_shards().values_list("pk", "bio"),
            plain(Profile).values_list("pk", "bio"),
        )

    def test_update_with_any_other_is_refused(self) -> None:
        newest = Activity.objects.order_by("-occurred_at").values("kind")[:1]
        for profiles in (
            Profile.objects.across_shards(),
            Profile.objects.filter(pk=ADA),
            Profile.objects.filter(pk__in=[ADA, CY]),
        ):
            for value in (Subquery(newest), newest, Coalesce(Subquery(newest), Value(""))):
                with self.assertRaises(AcrossShardsRefused), self.assert_touches():
                    profiles.update(bio=value)
        with self.assertRaises(AcrossShardsRefused), self.assert_touches():
            Profile.objects.filter(pk=ADA).update(bio=Subquery(User.objects.values("name")[:1]))

    def test_delete(self) -> None:
        busy_ones = Activity.objects.filter(kind="order").values("profile")
        with self.assertRaises(AcrossShardsRefused), self.assert_touches():
            Profile.objects.across_shards().filter(plan__in=Profile.objects.values("plan")).delete()
        deleted, _ = Profile.objects.across_shards().filter(pk__in=busy_ones).delete()
        self.assertEqual(deleted, 3 + 7)

    def test_aggregate(self) -> None:
        smallest = Subquery(
            Activity.objects.filter(profile=OuterRef("pk")).order_by("amount").values("amount")[:1]
        )
        anyones = Subquery(Activity.objects.order_by("amount").values("amount")[:1])
        for profiles, reference in (
            (Profile.objects.across_shards(), plain(Profile)),
            (Profile.objects.filter(pk=ADA), plain(Profile).filter(pk=ADA)),
        ):
            expected = reference.aggregate(
                x=Sum(
                    Subquery(
                        plain(Activity)
                        .filter(profile=OuterRef("pk"))
                        .order_by("amount")
                        .values("amount")[:1]
                    )
                )
            )
            self.assertEqual(profiles.aggregate(x=Sum(smallest)), expected)
            for aggregates in (
                {"x": Max(anyones)},
                {"n": Count("pk"), "x": Max(Coalesce(anyones, Value(0)))},
                {"x": Count("pk", filter=Q(plan__in=Profile.objects.values("plan")))},
                {"x": Count("pk", filter=Exists(Activity.objects.filter(kind="order")))},
            ):
                with self.assertRaises(AcrossShardsRefused), self.assert_touches():
                    profiles.aggregate(**aggregates)

    def test_of_groups(self) -> None:
        grouped = Profile.objects.filter(pk=ADA).values("plan").annotate(n=Count("activities"))
        self.assertEqual(grouped.aggregate(total=Sum("n"), twice=F("total") * 2)["twice"], 6)
