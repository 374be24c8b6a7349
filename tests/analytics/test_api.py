"""/api/analytics/summary."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

from django.test import TestCase
from django.utils import timezone

from analytics.api import summary
from analytics.models import SyncRun, UserAnalytics
from tests.support import server_down
from users.models import User

URL = "/api/analytics/summary"


def add(*, joined: int, **values: object) -> None:
    """Add a user who joined so many days ago."""
    fields = {"email": "someone@example.com", "is_active": True, "is_staff": False} | values
    joined_at = timezone.now() - timedelta(days=joined)
    UserAnalytics.objects.create(user_id=uuid4(), date_joined=joined_at, **fields)


class SummaryTests(TestCase):
    databases = {"analytics"}

    def test_counts_from_analytics_alone(self):
        add(joined=1, is_staff=True)
        add(joined=8)
        add(joined=9, is_active=False)
        add(joined=40)
        with self.assertNumQueries(2, using="analytics"):
            found = summary()
        self.assertEqual(
            found,
            {
                "total": 4,
                "active": 3,
                "staff": 1,
                "joined_last_7_days": 1,
                "joined_last_30_days": 3,
                "last_sync": None,
            },
        )

    def test_last_sync_is_the_last_full_pass_that_succeeded(self):
        def run(day: int, **values: str) -> datetime:
            finished = datetime(2026, 1, day, tzinfo=UTC)
            SyncRun.objects.create(**{"mode": "full"} | values, finished_at=finished)
            return finished

        run(1)
        last = run(2)
        run(3, error="It stopped.")
        run(4, mode="user")
        self.assertEqual(summary()["last_sync"], last)


class SummaryApiTests(TestCase):
    databases = "__all__"

    def test_answers_staff(self):
        self.client.force_login(User.objects.create_user("staff@example.com", is_staff=True))
        add(joined=1)
        response = self.client.get(URL)
        self.assertEqual((response.status_code, response.json()["total"]), (200, 1))

    def test_refuses_others(self):
        self.enterContext(self.assertLogs("django.request"))
        self.assertEqual(self.client.get(URL).status_code, 403)
        self.client.force_login(User.objects.create_user("ada@example.com"))
        self.assertEqual(self.client.get(URL).status_code, 403)

    def test_answers_503_while_analytics_is_down(self):
        self.client.force_login(User.objects.create_user("staff@example.com", is_staff=True))
        with server_down("analytics"), self.assertLogs():
            response = self.client.get(URL)
        self.assertEqual((response.status_code, response.json()["database"]), (503, "analytics"))
