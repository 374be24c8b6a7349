"""Models as migrations see them: without a key, so a function there names its shard."""

from typing import Any

from django.db.migrations.loader import MigrationLoader
from django.db.models import F, Value
from django.db.models.functions import Concat

from sharding import use_shard
from sharding.errors import ShardKeyRequired
from tests.sharding.methods.world import BOB, EVE, FREE_ID, SHARDS, WorldTestCase, plain
from users.models import Profile


class HistoricalModelTests(WorldTestCase):
    def setUp(self) -> None:
        super().setUp()
        apps: Any = MigrationLoader(None, ignore_no_migrations=True).project_state().apps
        self.profile = apps.get_model("users", "Profile")
        self.activity = apps.get_model("users", "Activity")

    def test_writes_in_bulk(self) -> None:
        profiles = self.profile.objects.using("shard_2")
        with self.assert_touches("shard_2"):
            profiles.bulk_create([self.profile(pk=FREE_ID)])
            found = list(profiles)
            for each in found:
                each.bio = Concat(F("bio"), Value("new"))
            self.assertEqual(profiles.bulk_update(found, ["bio"]), 3)
        self.assertEqual({each.bio for each in plain(Profile, "shard_2")}, {"new"})

    def test_related_rows_inside_use_shard(self) -> None:
        with use_shard("shard_2"), self.assert_touches("shard_2"):
            found = {each.pk: each for each in self.profile.objects.prefetch_related("activities")}
            self.assertEqual([len(found[pk].activities.all()) for pk in (BOB, EVE)], [2, 0])
            self.assertEqual({each.profile_id for each in self.activity.objects.all()}, {BOB})
            self.profile(pk=FREE_ID).save()

    def test_without_a_shard(self) -> None:
        for ask in (
            lambda: self.profile.objects.get(pk=BOB),
            lambda: self.profile.objects.create(pk=FREE_ID),
            lambda: self.profile.objects.bulk_create([self.profile(pk=FREE_ID)]),
            lambda: self.profile(pk=FREE_ID).save(),
        ):
            with self.assert_touches(), self.assertRaisesMessage(ShardKeyRequired, "connection."):
                ask()

    def test_not_across_shards(self) -> None:
        """The function runs once on each shard: what it does on all is done three times."""
        everybody = self.profile.objects.across_shards()
        for ask in (
            lambda: everybody.update(bio=Concat(F("bio"), Value("x"))),
            lambda: everybody.filter(plan="free").count(),
            lambda: list(everybody),
        ):
            with self.assert_touches(), self.assertRaisesMessage(ShardKeyRequired, "connection."):
                ask()
        self.assertEqual(sum(plain(Profile, alias).count() for alias in SHARDS), 6)
