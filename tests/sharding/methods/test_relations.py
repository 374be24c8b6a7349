"""Foreign keys, related managers and prefetches: the shards of the objects at hand, no others."""

from typing import Any

from django.db import transaction
from django.db.models import Count, Prefetch, prefetch_related_objects

from sharding.errors import AcrossShardsRefused
from tests.sharding.methods.world import (
    ADA,
    BOB,
    CY,
    DEE,
    EVE,
    FAY,
    SHARDS,
    WorldTestCase,
    activity_id,
    plain,
)
from users.models import Activity, Profile


def kinds(profile: Profile) -> list[str]:
    """The kinds of the activities that were prefetched."""
    return sorted(activity.kind for activity in profile.activities.all())


class ForeignKeyTests(WorldTestCase):
    def test_forward_is_lazy_and_on_the_objects_own_shard(self) -> None:
        activity = Activity.objects.get(profile=BOB, kind="login")
        with self.assert_touches("shard_2", times=1):
            self.assertEqual(activity.profile.display_name, "Bob")
        with self.assert_touches():
            self.assertEqual(activity.profile.display_name, "Bob")

    def test_select_related_is_one_statement_on_each_shard(self) -> None:
        queryset = Activity.objects.across_shards().select_related("profile").order_by("pk")
        with self.assert_touches(*SHARDS, times=1):
            names = [activity.profile.display_name for activity in queryset]
        expected = plain(Activity).select_related("profile").order_by("pk")
        self.assertEqual(names, [activity.profile.display_name for activity in expected])
        self.assertEqual(
            {(activity._state.db, activity.profile._state.db) for activity in queryset},
            {(alias, alias) for alias in SHARDS},
        )

    def test_the_object_of_another_user_cannot_be_assigned(self) -> None:
        activity = Activity.objects.get(profile=BOB, kind="login")
        for user_id in (ADA, EVE):  # EVE's is on the same shard
            with self.assertRaisesMessage(ValueError, "router prevents this relation"):
                activity.profile = Profile.objects.get(pk=user_id)

    def test_a_new_object_takes_the_shard_of_its_key(self) -> None:
        """Assigning a related object pins a new one to that object's database."""
        activity = Activity(kind="new", profile=Profile.objects.get(pk=BOB))
        activity.profile_id = CY
        with self.assert_touches("shard_3"):
            activity.save()
        self.assertEqual(activity._state.db, "shard_3")


class RelatedManagerTests(WorldTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.bob = Profile.objects.get(pk=BOB)

    def test_reads(self) -> None:
        for read, expected in (
            (lambda q: len(q.all()), 2),
            (lambda q: q.count(), 2),
            (lambda q: q.filter(kind="order").get().pk, activity_id(BOB, 1)),
            (lambda q: q.exclude(kind="login").exists(), True),
            (lambda q: q.order_by("occurred_at").first().kind, "login"),
            (lambda q: sorted(q.values_list("kind", flat=True)), ["login", "order"]),
            (lambda q: q.aggregate(n=Count("pk"))["n"], 2),
            (lambda q: q.in_bulk([activity_id(BOB, 0)])[activity_id(BOB, 0)].kind, "login"),
            (lambda q: q.across_shards().count(), 2),
        ):
            with self.assert_touches("shard_2", times=1):
                self.assertEqual(read(self.bob.activities), expected)

    def test_create(self) -> None:
        with self.assert_touches("shard_2", times=1):
            created = self.bob.activities.create(kind="new")
        self.assertEqual(created.profile_id, BOB)
        self.assertEqual(plain(Activity, "shard_2").get(pk=created.pk).kind, "new")

    def test_get_or_create(self) -> None:
        with self.assert_touches("shard_2"):
            created, was_new = self.bob.activities.get_or_create(kind="new")
            found, is_new = self.bob.activities.get_or_create(kind="new")
        self.assertEqual((created, was_new, is_new), (found, True, False))

    def test_update_or_create(self) -> None:
        with self.assert_touches("shard_2"):
            changed, is_new = self.bob.activities.update_or_create(
                defaults={"amount": 9}, kind="login"
            )
        self.assertEqual((changed.pk, is_new), (activity_id(BOB, 0), False))
        self.assertEqual(plain(Activity, "shard_2").get(kind="login").amount, 9)

    def test_bulk_create(self) -> None:
        with self.assert_touches("shard_2"):
            self.bob.activities.bulk_create([Activity(profile=self.bob, kind="new")])

    def test_update(self) -> None:
        with self.assert_touches("shard_2", times=1):
            self.assertEqual(self.bob.activities.update(kind="old"), 2)
        self.assertEqual(Activity.objects.across_shards().filter(kind="old").count(), 2)

    def test_add_rewrites_no_other_key(self) -> None:
        mine = self.bob.activities.get(kind="login")
        with self.assert_touches("shard_2"):
            self.bob.activities.add(mine)
        self.assertEqual(self.bob.activities.count(), 2)

    def test_add_refuses_what_is_another_users(self) -> None:
        for user_id in (ADA, CY):
            theirs = Activity.objects.get(profile=user_id, kind="login")
            with self.assertRaisesMessage(ValueError, "router prevents this relation"):
                self.bob.activities.add(theirs)
            with (
                self.assertRaisesMessage(ValueError, "router prevents this relation"),
                transaction.atomic(using="shard_2"),
            ):
                self.bob.activities.add(theirs, bulk=False)
        self.assertEqual(self.bob.activities.count(), 2)

    def test_add_stores_a_new_object(self) -> None:
        with self.assert_touches("shard_2"):
            self.bob.activities.add(Activity(kind="new"), bulk=False)
        self.assertEqual(self.bob.activities.count(), 3)

    def test_set_keeps_what_is_there(self) -> None:
        with self.assert_touches("shard_2"):
            self.bob.activities.set(self.bob.activities.all())
        self.assertEqual(self.bob.activities.count(), 2)

    def test_set_refuses_what_is_another_users(self) -> None:
        refused = self.assertRaisesMessage(ValueError, "router prevents this relation")
        with refused, transaction.atomic(using="shard_2"):
            self.bob.activities.set([Activity.objects.get(profile=CY)])

    def test_there_is_no_delete_on_the_manager(self) -> None:
        """As in Django: `profile.activities.delete()` would be too easy to write."""
        self.assertFalse(hasattr(self.bob.activities, "delete"))
        self.assertFalse(hasattr(Profile.objects, "delete"))
        with self.assert_touches("shard_2"):
            self.assertEqual(self.bob.activities.all().delete()[0], 2)

    def test_of_an_object_of_another_shard_after_the_first(self) -> None:
        self.assertEqual(self.bob.activities.count(), 2)
        with self.assert_touches("shard_1"):
            self.assertEqual(Profile.objects.get(pk=ADA).activities.count(), 3)

    def test_combined_with_those_of_another_user(self) -> None:
        ada = Profile.objects.get(pk=ADA)
        with self.assert_touches("shard_1", "shard_2", times=1):
            both = list(ada.activities.all() | self.bob.activities.all())
        self.assertEqual({activity.profile_id for activity in both}, {ADA, BOB})
        self.assertEqual(len(both), 5)
        self.assertEqual({activity._state.db for activity in both}, {"shard_1", "shard_2"})

    def test_union_with_those_of_a_neighbour(self) -> None:
        ada, dee = Profile.objects.get(pk=ADA), Profile.objects.get(pk=DEE)
        with self.assert_touches("shard_1", times=1):
            self.assertEqual(len(ada.activities.all().union(dee.activities.all())), 5)
        with self.assert_touches(), self.assertRaisesMessage(AcrossShardsRefused, "union()"):
            list(ada.activities.all().union(self.bob.activities.all()))

    def test_a_deferred_key_is_no_recursion(self) -> None:
        activity = Activity.objects.filter(profile=BOB).only("kind").earliest("occurred_at")
        with self.assert_touches("shard_2"):
            self.assertEqual(activity.profile.activities.count(), 2)


class PrefetchTests(WorldTestCase):
    """Of objects of several shards too: Django takes the first one's database for all of them."""

    def test_reverse_of_one_shard(self) -> None:
        with self.assert_touches("shard_1", times=2):
            (ada,) = Profile.objects.filter(pk=ADA).prefetch_related("activities")
        with self.assert_touches():
            self.assertEqual(kinds(ada), ["login", "order", "order"])

    def test_reverse_of_several_shards(self) -> None:
        queryset = Profile.objects.across_shards().prefetch_related("activities").order_by("pk")
        with self.assert_touches(*SHARDS, times=2):
            found = {profile.pk: profile for profile in queryset}
        with self.assert_touches():
            self.assertEqual(len(kinds(found[ADA])), 3)
            self.assertEqual([len(kinds(found[key])) for key in (BOB, CY, DEE, FAY)], [2, 1, 2, 0])

    def test_reverse_asks_only_the_shards_of_the_objects(self) -> None:
        queryset = Profile.objects.filter(pk__in=[ADA, CY]).prefetch_related("activities")
        with self.assert_touches("shard_1", "shard_3", times=2):
            self.assertEqual(sum(len(kinds(profile)) for profile in queryset), 4)

    def test_forward(self) -> None:
        queryset = Activity.objects.across_shards().prefetch_related("profile")
        with self.assert_touches(*SHARDS, times=2):
            found = list(queryset)
        with self.assert_touches():
            for activity in found:
                self.assertEqual(activity.profile.pk, activity.profile_id)
                self.assertEqual(activity.profile._state.db, activity._state.db)

    def test_there_and_back(self) -> None:
        queryset = Profile.objects.across_shards().prefetch_related("activities__profile")
        with self.assert_touches(*SHARDS):
            found = list(queryset)
        with self.assert_touches():
            for profile in found:
                for activity in profile.activities.all():
                    self.assertEqual(activity.profile, profile)

    def test_with_a_queryset(self) -> None:
        orders = Activity.objects.filter(kind="order").order_by("-occurred_at")
        lookup = Prefetch("activities", queryset=orders, to_attr="orders")
        with self.assert_touches("shard_1", "shard_2", times=2):
            found = Profile.objects.filter(pk__in=[ADA, BOB]).prefetch_related(lookup).in_bulk()
        with self.assert_touches():
            self.assertEqual(
                [order.pk for order in found[ADA].orders],
                [activity_id(ADA, 2), activity_id(ADA, 1)],
            )
            self.assertEqual([order.pk for order in found[BOB].orders], [activity_id(BOB, 1)])

    def test_one_prefetch_object_serves_several_querysets(self) -> None:
        """Kept between them, it must not keep the first one's shard."""
        lookup = Prefetch("activities", queryset=Activity.objects.order_by("occurred_at"))
        for user_id, count in ((ADA, 3), (BOB, 2), (CY, 1), (ADA, 3)):
            (profile,) = Profile.objects.filter(pk=user_id).prefetch_related(lookup)
            self.assertEqual(len(kinds(profile)), count)

    def test_with_a_queryset_across_shards(self) -> None:
        lookup = Prefetch("activities", queryset=Activity.objects.across_shards())
        with self.assert_touches("shard_3", times=2):
            (profile,) = Profile.objects.filter(pk=CY).prefetch_related(lookup)
        self.assertEqual(kinds(profile), ["login"])

    def test_with_a_sliced_queryset(self) -> None:
        newest = Activity.objects.order_by("-occurred_at")[:1]
        lookup = Prefetch("activities", queryset=newest, to_attr="newest")
        with self.assert_touches(*SHARDS, times=2):
            found = Profile.objects.across_shards().prefetch_related(lookup).in_bulk()
        self.assertEqual([row.pk for row in found[ADA].newest], [activity_id(ADA, 2)])
        self.assertEqual([row.pk for row in found[BOB].newest], [activity_id(BOB, 1)])
        self.assertEqual([row.pk for row in found[CY].newest], [activity_id(CY, 0)])
        self.assertEqual(found[FAY].newest, [])

    def test_of_objects_at_hand(self) -> None:
        objects = [Profile.objects.get(pk=user_id) for user_id in (ADA, BOB)]
        with self.assert_touches("shard_1", "shard_2", times=1):
            prefetch_related_objects(objects, "activities")
        self.assertEqual([len(kinds(profile)) for profile in objects], [3, 2])

    def test_while_streaming(self) -> None:
        queryset = Profile.objects.across_shards().order_by("pk").prefetch_related("activities")
        counts = [len(kinds(profile)) for profile in queryset.iterator(chunk_size=2)]
        self.assertEqual(sum(counts), 8)

    def test_with_the_key_left_out(self) -> None:
        values: Any = Activity.objects.values("kind")
        with self.assertRaisesMessage(ValueError, "cannot use raw(), values()"):
            Prefetch("activities", queryset=values)

    def test_only_keeps_the_key(self) -> None:
        lookup = Prefetch("activities", queryset=Activity.objects.only("kind"))
        with self.assert_touches(*SHARDS, times=2):
            found = Profile.objects.across_shards().only("plan").prefetch_related(lookup).in_bulk()
        with self.assert_touches():
            self.assertEqual(len(kinds(found[ADA])), 3)


class RelationsInTurnTests(RelatedManagerTests):
    in_turn = True


class PrefetchInTurnTests(PrefetchTests):
    in_turn = True
