"""Invented activities."""

import io
from datetime import UTC, datetime, timedelta
from unittest import mock

from django.core.management import CommandError, call_command
from django.test import TestCase

from sharding import conf
from tests.sharding.ids import id_on
from tests.support import server_down
from users import seeding
from users.models import Activity, Profile
from users.seeding import Seeded, seed_activities

NOW = datetime(2026, 11, 1, tzinfo=UTC)


def activities() -> list[tuple[object, ...]]:
    return [
        row
        for shard in conf.shards()
        for row in Activity.objects.using(shard).order_by("id").values_list()
    ]


class SeedingTests(TestCase):
    databases = "__all__"
    joined = NOW - timedelta(days=100)

    @classmethod
    def setUpTestData(cls):
        for alias in conf.shards():
            cls.add_profiles(alias, 50)

    @classmethod
    def add_profiles(cls, alias: str, number: int, **values: object) -> list[Profile]:
        values = {"created_at": cls.joined, **values}
        found = [Profile(user_id=id_on(alias), **values) for _ in range(number)]
        return Profile.objects.using(alias).bulk_create(found)

    def test_gives_every_shard_activities_about_as_many_as_asked_for(self):
        seeded = seed_activities(per_user=4, now=NOW)
        self.assertEqual((seeded.profiles, seeded.activities), (150, len(activities())))
        # The mean of 150 has a standard deviation of 0.4.
        self.assertTrue(2 < seeded.activities / 150 < 6, seeded)
        for alias in conf.shards():
            self.assertTrue(Activity.objects.using(alias).exists())

    def test_they_are_plausible(self):
        seed_activities(now=NOW)
        for activity in Activity.objects.using("shard_1"):
            self.assertTrue(self.joined <= activity.occurred_at <= NOW)
            self.assertIn(activity.kind, ("login", "purchase", "comment", "upload"))
            self.assertEqual(activity.amount > 0, activity.kind == "purchase")
            self.assertTrue(activity.payload)
            activity.full_clean(validate_unique=False, validate_constraints=False)

    def test_the_same_seed_gives_the_same(self):
        seed_activities(seed=7, now=NOW)
        first = activities()
        self.forget()
        seed_activities(seed=7, now=NOW)
        self.assertEqual(activities(), first)
        self.forget()
        seed_activities(seed=8, now=NOW)
        self.assertNotEqual(activities(), first)

    def forget(self) -> None:
        for alias in conf.shards():
            Activity.objects.using(alias).all()._raw_delete(alias)

    def test_those_who_have_activities_keep_them_as_they_are(self):
        seed_activities(now=NOW)
        first = activities()
        again = seed_activities(now=NOW)
        self.assertEqual((again.activities, activities()), (0, first))
        (new,) = self.add_profiles("shard_2", 1)
        seed_activities(per_user=50, seed=2, now=NOW)
        self.assertTrue(Activity.objects.using("shard_2").filter(profile=new).exists())
        kept = {row[0] for row in activities()}
        self.assertTrue(kept.issuperset(row[0] for row in first))

    def test_none_for_a_profile_of_the_future(self):
        Profile.objects.using("shard_1").update(created_at=NOW + timedelta(days=1))
        seed_activities(now=NOW)
        self.assertFalse(Activity.objects.using("shard_1").exists())

    def test_none_on_average_is_none(self):
        self.assertEqual(seed_activities(per_user=0, now=NOW), Seeded(150, 0))

    def test_small_batches_miss_nobody(self):
        told: list[int] = []
        with mock.patch.object(seeding, "_BATCH", 30):
            seeded = seed_activities(now=NOW, advance=told.append)
        self.assertEqual((seeded.profiles, sum(told), max(told)), (150, 150, 30))

    def test_profiles_that_another_shard_owns_are_left_alone(self):
        with mock.patch.object(seeding, "get_shard_for_user_id", return_value="shard_3"):
            seed_activities(now=NOW)
        self.assertFalse(Activity.objects.using("shard_1").exists())
        self.assertTrue(Activity.objects.using("shard_3").exists())

    def test_a_shard_that_is_down(self):
        with server_down("shard_2"), self.assertRaisesRegex(CommandError, "shard_2 cannot be"):
            call_command("seed_activities", stdout=io.StringIO())

    def test_the_command(self):
        out = io.StringIO()
        call_command("seed_activities", "--per-user=2", "--seed=3", stdout=out)
        self.assertEqual(
            out.getvalue(), f"{len(activities())} activities for 150 profiles that had none.\n"
        )
        for argument in ("--per-user=-1", "--per-user=nan", "--seed=x"):
            with self.subTest(argument), self.assertRaises(CommandError):
                call_command("seed_activities", argument)
