"""The assertions for tests of code that uses sharded models."""

from django.db import connections

from analytics.models import SyncPosition
from sharding.testing import ShardedTestCase
from tests.sharding.ids import id_on
from users.models import Profile


class AssertShardsTests(ShardedTestCase):
    def test_the_shards_that_were_asked(self) -> None:
        with self.assertShards("shard_2"):
            Profile.objects.filter(user_id=id_on("shard_2")).first()
        with self.assertShards("shard_1", "shard_3"):
            list(Profile.objects.filter(user_id__in=[id_on("shard_1"), id_on("shard_3")]))
        with self.assertShards():
            Profile.objects.none().count()

    def test_another_shard_or_one_too_few_fails_and_shows_the_statements(self) -> None:
        for expected in (("shard_1",), (), ("shard_1", "shard_2")):
            with (
                self.subTest(expected),
                self.assertRaisesRegex(self.failureException, "(?s)shard_2.*SELECT"),
                self.assertShards(*expected),
            ):
                Profile.objects.filter(user_id=id_on("shard_2")).first()


class AssertFanoutTests(ShardedTestCase):
    def test_each_query_to_several_shards_counts_once(self) -> None:
        everywhere = Profile.objects.across_shards()
        with self.assertFanout(6):
            list(everywhere.all())
            everywhere.count()
            everywhere.exists()
            list(everywhere.iterator())
            everywhere.update(bio="x")
            everywhere.delete()

    def test_a_query_to_one_shard_does_not(self) -> None:
        with self.assertFanout(0):
            Profile.objects.filter(user_id=id_on("shard_2")).count()

    def test_another_number_fails_and_names_the_model(self) -> None:
        for expected in (0, 2):
            with (
                self.subTest(expected),
                self.assertRaisesRegex(self.failureException, r"users\.Profile on shard_1"),
                self.assertFanout(expected),
            ):
                Profile.objects.across_shards().count()


class SerializedTests(ShardedTestCase):
    def test_what_a_shard_held_is_put_back(self) -> None:
        """For serialized_rollback: also what is no user's, and says so nowhere but by its place."""
        profile = Profile.objects.create(user_id=id_on("shard_2"))
        SyncPosition.objects.using("shard_2").create(source="here")
        creation = connections["shard_2"].creation
        held = creation.serialize_db_to_string()
        Profile.objects.filter(pk=profile.pk).delete()
        SyncPosition.objects.using("shard_2").all().delete()
        with self.assertShards("shard_2"):
            creation.deserialize_db_from_string(held)
        self.assertEqual(Profile.objects.get(pk=profile.pk), profile)
        self.assertTrue(SyncPosition.objects.using("shard_2").filter(source="here").exists())
