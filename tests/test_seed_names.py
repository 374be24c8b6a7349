"""Every part of the document that the project grew from is here under its new name, and works."""

from django.http import HttpResponse
from django.test import RequestFactory, TestCase

from tests.analytics.sync.support import SyncTestCase
from tests.sharding.ids import id_on

URL = "postgresql://someone:secret@db.example.com/app?schema=public"
ENVIRONMENT = {
    "DATABASE_PRIMARY_URL": URL,
    "DATABASE_ANALYTICS_URL": f"{URL}&port=5433",
    "DATABASE_SHARD_1_URL": f"{URL}&port=5434",
    "DATABASE_POOL_MIN": "3",
    "DATABASE_POOL_MAX": "7",
}


class SeedNamesTests(TestCase):
    databases = "__all__"

    def test_two_data_sources(self) -> None:
        from config.databases import databases

        configured = databases(ENVIRONMENT, embedded={})
        self.assertEqual([*configured], ["default", "analytics", "shard_1"])
        self.assertEqual(configured["default"]["HOST"], "db.example.com")
        self.assertEqual(configured["analytics"]["PORT"], "5433")

    def test_pool_sizes(self) -> None:
        from config.databases import databases

        pool = databases(ENVIRONMENT, embedded={})["default"]["OPTIONS"]["pool"]
        self.assertEqual((pool["min_size"], pool["max_size"]), (3, 7))

    def test_database_manager(self) -> None:
        from sharding.databases import DatabaseManager

        manager = DatabaseManager()
        self.assertEqual(manager.get_primary().alias, "default")
        self.assertEqual(manager.get_analytics().alias, "analytics")
        self.assertEqual(manager.get_shard(id_on("shard_2")).alias, "shard_2")
        self.assertTrue(callable(manager.disconnect))  # called in tests.sharding.test_databases

    def test_shards(self) -> None:
        from sharding import get_shard_for_user_id
        from sharding.slots import SlotMap

        self.assertEqual(get_shard_for_user_id("00000000-0000-4000-8000-000000000000"), "shard_1")
        self.assertEqual(SlotMap.even(["shard_1", "shard_2"]).alias(500), "shard_2")

    def test_writing_and_reading(self) -> None:
        from users.models import Profile
        from users.services import create_user, delete_user, get_user_from_shard, update_user

        user = create_user(email="ada@example.com", name="Ada", profile={"plan": "pro"})
        update_user(user.id, profile={"display_name": "Countess"})
        profile = get_user_from_shard(user.id)
        assert isinstance(profile, Profile)
        self.assertEqual((profile.plan, profile.display_name), ("pro", "Countess"))
        self.assertTrue(delete_user(user.id))
        self.assertIsNone(get_user_from_shard(user.id))

    def test_reading_with_fallback(self) -> None:
        from users.services import create_user, read_users_with_fallback

        user = create_user(email="ada@example.com")
        read = read_users_with_fallback(limit=10)
        self.assertEqual(([row.id for row in read.users], read.source), ([user.id], "default"))

    def test_database_of_a_request(self) -> None:
        from sharding.middleware import DatabaseSelectionMiddleware, get_request_database

        request = RequestFactory().get("/api/analytics/summary")
        self.assertEqual(get_request_database(request), "analytics")
        DatabaseSelectionMiddleware(lambda request: HttpResponse())(request)
        self.assertEqual(request.database, "analytics")  # type: ignore[attr-defined]

    def test_end_of_a_process(self) -> None:
        # What they do is tested with real processes, beside the other tests of their packages.
        from config.gunicorn import worker_exit
        from sharding.lifecycle import install

        self.assertTrue(callable(worker_exit))
        self.assertTrue(callable(install))


class CopyTests(SyncTestCase):
    """What a sync writes it commits: not inside a test's own transaction."""

    def test_copying_to_analytics(self) -> None:
        from analytics.models import UserAnalytics
        from analytics.sync import sync_user
        from users.services import create_user, delete_user

        user = create_user(email="ada@example.com")
        copy = sync_user(user.id)
        assert isinstance(copy, UserAnalytics)
        self.assertEqual((copy.user_id, copy.email), (user.id, "ada@example.com"))
        delete_user(user.id)
        self.assertIsNone(sync_user(user.id))
        self.assertFalse(UserAnalytics.objects.exists())
