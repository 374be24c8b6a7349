"""/api/analytics."""

from datetime import UTC, date, datetime, timedelta
from typing import Any, ClassVar
from uuid import uuid4

from django.test import TestCase
from django.utils import timezone

from analytics import reports
from analytics.api import summary
from analytics.models import ProfileAnalytics, SyncRun, UserAnalytics
from tests.support import server_down
from tests.users.api import ApiTestCase, with_token

REPORTS = ("summary", "signups", "active", "segments", "retention")


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


class AnalyticsApiTests(ApiTestCase):
    granted: ClassVar = ("analytics.view_useranalytics",)

    def setUp(self) -> None:
        super().setUp()
        self.client = with_token(self.staff)

    def read(self, path: str) -> Any:
        response = self.client.get(f"/api/analytics/{path}")
        self.assertEqual(response.status_code, 200, response.content)
        return response.json()

    def test_summary(self):
        add(joined=1)
        self.assertEqual(self.read("summary")["total"], 1)

    def test_sign_ups_by_day_week_and_month(self):
        for day in (1, 1, 2, 15):
            joined = datetime(2026, 3, day, 12, tzinfo=UTC)
            UserAnalytics.objects.create(
                user_id=uuid4(), is_active=True, is_staff=False, date_joined=joined
            )
        query = "signups?from=2026-03-01&to=2026-03-03"
        self.assertEqual(
            self.read(query),
            {
                "from": "2026-03-01",
                "to": "2026-03-03",
                "bucket": "day",
                "results": [
                    {"start": "2026-03-01", "users": 2},
                    {"start": "2026-03-02", "users": 1},
                    {"start": "2026-03-03", "users": 0},
                ],
            },
        )
        months = self.read("signups?from=2026-03-01&to=2026-04-01&bucket=month")
        self.assertEqual([row["users"] for row in months["results"]], [4, 0])

    def test_active(self):
        add(joined=40, last_login=timezone.now())
        found = self.read("active")
        self.assertEqual(sum(row["users"] for row in found["results"]), 1)
        self.assertEqual(len(found["results"]), 31)

    def test_segments(self):
        now = timezone.now()
        for plan in ("pro", "pro", "free"):
            ProfileAnalytics.objects.create(
                user_id=uuid4(),
                shard="shard_1",
                country="",
                plan=plan,
                created_at=now,
                updated_at=now,
            )
        self.assertEqual(
            self.read("segments")["results"],
            [
                {"country": "", "plan": "pro", "users": 2},
                {"country": "", "plan": "free", "users": 1},
            ],
        )

    def test_retention(self):
        add(joined=0, last_login=timezone.now())
        today = timezone.now().date()
        (row,) = self.read(f"retention?from={today - timedelta(days=1)}&to={today}")["results"]
        self.assertEqual((row["joined"], row["months_later"], row["still_active"]), (1, 0, 1))

    def test_refuses_ranges_that_are_none(self):
        longest = reports.LONGEST.days
        for query, field in {
            "from=2026-02-01&to=2026-01-01": "from",
            f"from=2000-01-01&to={date(2000, 1, 2) + timedelta(days=longest)}": "from",
            "from=yesterday": "from",
            "to=2026-02-30": "to",
            "from=0001-01-01": "from",
            "to=9999-12-31": "to",
            "bucket=year": "bucket",
            "since=2026-01-01": "since",
        }.items():
            with self.subTest(query):
                response = self.client.get(f"/api/analytics/signups?{query}")
                self.assertProblem(response, 400, **{field: ""})

    def test_the_longest_range_is_answered(self):
        start = date(2020, 1, 1)
        end = start + reports.LONGEST
        self.assertEqual(len(self.read(f"signups?from={start}&to={end}")["results"]), 1831)

    def test_refuses_others(self):
        for report in REPORTS:
            path = f"/api/analytics/{report}"
            self.assertProblem(self.send("GET", path, by=None), 401)
            self.assertProblem(self.send("GET", path, by=self.ada), 403)

    def test_answers_503_while_analytics_is_down(self):
        with server_down("analytics"), self.assertLogs():
            found = self.assertProblem(self.client.get("/api/analytics/summary"), 503)
        self.assertEqual(found["database"], "analytics")

    def test_asks_the_primary_who_it_is_and_nothing_else(self):
        self.client.force_login(self.staff)
        for client in (self.client, with_token(self.staff)):
            for report in REPORTS:
                with self.subTest(report):
                    path = f"/api/analytics/{report}"
                    self.assertEqual(client.get(path).status_code, 200)

    def test_works_while_the_primary_is_down(self):
        self.read("summary")
        with server_down("default"), self.assertLogs():
            self.read("summary")
