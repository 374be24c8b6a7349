"""update() and delete() of querysets: where their rows are, or an error and nothing written."""

from django.db.models import F, Value
from django.db.models.functions import Concat

from sharding import use_shard
from sharding.errors import (
    ShardKeyChanged,
    ShardKeyRequired,
)
from tests.sharding.methods.world import (
    ADA,
    BOB,
    CY,
    DEE,
    EVE,
    FREE_ID,
    SHARDS,
    WorldTestCase,
    counts,
)
from users.models import Activity, Profile


class UpdateTests(WorldTestCase):
    def test_each_shard_once(self) -> None:
        for queryset, shards, count in (
            (Profile.objects.filter(pk=BOB), ["shard_2"], 1),
            (Profile.objects.filter(pk__in=[BOB, EVE]), ["shard_2"], 2),
            (Profile.objects.filter(pk__in=[ADA, CY], plan="team"), ["shard_1", "shard_3"], 1),
            (Profile.objects.across_shards().filter(country="CH"), SHARDS, 3),
        ):
            with self.assert_touches(*shards, times=1):
                self.assertEqual(queryset.update(bio=Concat("bio", Value("."))), count)
        bios = Profile.objects.across_shards().order_by("pk").values_list("bio", flat=True)
        self.assertEqual(list(bios), [".", "", "..", ".", "..", "."])

    def test_without_a_key(self) -> None:
        with self.assert_touches(), self.assertRaises(ShardKeyRequired):
            Profile.objects.update(plan="pro")
        with use_shard("shard_3"), self.assert_touches("shard_3"):
            self.assertEqual(Profile.objects.update(plan="pro"), 2)

    def test_the_key_is_refused(self) -> None:
        for queryset, values in (
            (Profile.objects.filter(pk=ADA), {"user_id": FREE_ID}),
            (Profile.objects.filter(pk=ADA), {"pk": FREE_ID}),
            (Profile.objects.across_shards(), {"user_id": FREE_ID}),
            (Activity.objects.filter(profile=ADA), {"profile": Profile(pk=DEE)}),
            (Activity.objects.filter(profile=ADA), {"profile": CY}),
            (Activity.objects.filter(profile=ADA), {"profile_id": CY}),
            (Activity.objects.filter(profile__in=[ADA, CY]), {"profile_id": CY, "kind": "x"}),
            (Activity.objects.using("shard_1").all(), {"profile_id": ADA}),
        ):
            with self.assertRaises(ShardKeyChanged):
                queryset.update(**values)
        self.assertEqual(counts(Activity), {"shard_1": 5, "shard_2": 2, "shard_3": 1})
        self.assert_on_shards(Profile)
        self.assert_on_shards(Activity)

    def test_the_same_key_is_no_change(self) -> None:
        self.assertEqual(Activity.objects.filter(profile=ADA).update(profile=ADA), 3)
        self.assertEqual(Activity.objects.filter(profile=ADA).update(profile=F("profile")), 3)

    def test_as_django_refuses(self) -> None:
        everyone = Profile.objects.across_shards().order_by("pk")
        for call in (
            lambda: everyone[:2].update(plan="pro"),
            lambda: everyone[:2].delete(),
            lambda: everyone.distinct("plan").delete(),
            lambda: everyone.values("plan").delete(),
        ):
            with self.assert_touches(), self.assertRaises(TypeError):
                call()


class DeleteTests(WorldTestCase):
    def test_of_one_key(self) -> None:
        with self.assert_touches("shard_2"):
            deleted = Profile.objects.filter(pk=BOB).delete()
        self.assertEqual(deleted, (3, {"users.Activity": 2, "users.Profile": 1}))

    def test_of_several_shards(self) -> None:
        with self.assert_touches("shard_1", "shard_3"):
            deleted = Profile.objects.filter(pk__in=[ADA, CY]).delete()
        self.assertEqual(deleted, (6, {"users.Activity": 4, "users.Profile": 2}))
        with self.assert_touches(*SHARDS):
            deleted = Activity.objects.across_shards().filter(kind="order").delete()
        self.assertEqual(deleted, (2, {"users.Activity": 2}))

    def test_clears_what_was_fetched(self) -> None:
        queryset = Profile.objects.across_shards().filter(country="CH")
        self.assertEqual(len(queryset), 3)
        queryset.delete()
        self.assertEqual(len(queryset), 0)

    def test_without_a_key(self) -> None:
        with self.assert_touches(), self.assertRaises(ShardKeyRequired):
            Profile.objects.all().delete()

    def test_of_an_object(self) -> None:
        activity = Activity.objects.get(profile=CY)
        with self.assert_touches("shard_3"):
            self.assertEqual(activity.delete()[0], 1)


class UpdateInTurnTests(UpdateTests):
    in_turn = True


class DeleteInTurnTests(DeleteTests):
    in_turn = True
