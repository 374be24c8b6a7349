"""Reading accounts while the primary is down."""

from concurrent.futures import ThreadPoolExecutor
from unittest import mock

from django.core.cache import cache
from django.db import ProgrammingError, connections
from django.db.models import F
from django.test import SimpleTestCase, TestCase

from analytics.models import UserAnalytics
from analytics.sync.described import USERS
from sharding.errors import DatabaseUnavailable
from tests.outage import pool_options
from tests.support import server_down
from users import fallback
from users.fallback import UsersRead
from users.models import User
from users.primary import breaker
from users.services import read_users_with_fallback


class FallbackTests(TestCase):
    databases = "__all__"

    @classmethod
    def setUpTestData(cls):
        for number in range(5):
            User.objects.create_user(f"user{number}@example.com", name=f"User {number}")
        rows = User.objects.values(*USERS.columns, user_id=F("id"))
        UserAnalytics.objects.bulk_create(UserAnalytics(**row) for row in rows)

    def setUp(self) -> None:
        cache.clear()  # it keeps the age of the copies

    def test_reads_the_primary_while_it_answers(self):
        UserAnalytics.objects.all().delete()
        with self.assertNoLogs():
            read = read_users_with_fallback()
        self.assertEqual((read.source, read.as_of), ("default", None))
        self.assertEqual([row.id for row in read.users], self.ids())

    def ids(self) -> list[object]:
        return list(User.objects.order_by("id").values_list("id", flat=True))

    def test_reads_the_same_rows_from_analytics_while_the_primary_is_down(self):
        expected = read_users_with_fallback()
        newest = UserAnalytics.objects.order_by("-synced_at")[0].synced_at
        with server_down("default"), self.assertLogs("users.primary", "WARNING") as logs:
            read = read_users_with_fallback()
        self.assertEqual(read.users, expected.users)
        self.assertEqual((read.source, read.as_of), ("analytics", newest))
        self.assertEqual(len(logs.output), 1)

    def test_pages_are_the_same_from_both(self):
        page = read_users_with_fallback(limit=2, offset=1)
        self.assertEqual([row.id for row in page.users], self.ids()[1:3])
        with server_down("default"), self.assertLogs():
            self.assertEqual(read_users_with_fallback(limit=2, offset=1).users, page.users)

    def test_raises_when_both_are_down(self):
        with (
            server_down("default"),
            server_down("analytics"),
            self.assertLogs(),
            self.assertRaises(DatabaseUnavailable) as caught,
        ):
            read_users_with_fallback()
        self.assertEqual(caught.exception.alias, "analytics")

    def test_raises_the_primarys_error_when_nobody_keeps_copies(self):
        with (
            mock.patch.object(fallback, "_read_copies", None),
            server_down("default"),
            self.assertLogs(),
            self.assertRaises(DatabaseUnavailable) as caught,
        ):
            read_users_with_fallback()
        self.assertEqual(caught.exception.alias, "default")

    def test_a_mistake_in_a_query_is_no_outage(self):
        with connections["default"].cursor() as cursor:
            cursor.execute("ALTER TABLE users_user RENAME TO elsewhere")
        with self.assertRaises(ProgrammingError):
            read_users_with_fallback()

    def test_refuses_negative_pages(self):
        for limit, offset in ((-1, 0), (1, -1)):
            with self.subTest(limit), self.assertRaisesRegex(ValueError, "negative"):
                read_users_with_fallback(limit=limit, offset=offset)


class PoolTests(SimpleTestCase):
    databases = "__all__"

    def test_no_connection_in_time_is_an_outage(self):
        self.enterContext(self.assertLogs("users.primary"))
        self.addCleanup(breaker.close)
        with (
            pool_options("default", min_size=0, max_size=1, timeout=0.2),
            connections["default"].cursor(),
            ThreadPoolExecutor(1) as thread,
        ):
            read = thread.submit(self.read).result()
        self.assertEqual(read.source, "analytics")

    def read(self) -> UsersRead:
        """Read in a thread of its own, which has a connection of its own."""
        try:
            return read_users_with_fallback()
        finally:
            connections.close_all()
