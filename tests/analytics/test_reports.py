"""Reports, against the same counted in Python."""

import random
import uuid
from collections import Counter
from datetime import UTC, date, datetime, timedelta

from django.db import connections
from django.test import TestCase
from django.test.utils import CaptureQueriesContext

from analytics import reports
from analytics.models import ProfileAnalytics, UserAnalytics


class ReportTests(TestCase):
    databases = {"analytics"}
    users: list[UserAnalytics]
    profiles: list[ProfileAnalytics]

    @classmethod
    def setUpTestData(cls) -> None:
        dice = random.Random(5)
        start = datetime(2026, 1, 1, tzinfo=UTC)
        cls.users = [_user(dice, start) for _ in range(400)]
        UserAnalytics.objects.bulk_create(cls.users)
        cls.profiles = [
            ProfileAnalytics(
                user_id=user.user_id,
                shard="shard_1",
                country=dice.choice(["", "CH", "DE"]),
                plan=dice.choice(["free", "pro"]),
                created_at=start,
                updated_at=start,
            )
            for user in cls.users
        ]
        ProfileAnalytics.objects.bulk_create(cls.profiles)

    def test_totals(self) -> None:
        active = sum(user.is_active for user in self.users)
        staff = sum(user.is_staff for user in self.users)
        self.assertEqual(reports.totals(), reports.Totals(400, active, staff))

    def test_sign_ups_count_every_bucket_of_the_range(self) -> None:
        start, end = date(2026, 1, 15), date(2026, 3, 20)
        for bucket in reports.BUCKETS:
            with self.subTest(bucket):
                joined = [user.date_joined for user in self.users]
                self.assertEqual(
                    reports.sign_ups(start, end, bucket), _counted(joined, start, end, bucket)
                )

    def test_active_users_by_their_last_login(self) -> None:
        start, end = date(2026, 2, 1), date(2026, 2, 28)
        seen = [user.last_login for user in self.users if user.last_login]
        self.assertEqual(reports.active_users(start, end), _counted(seen, start, end, "day"))

    def test_users_by_country_and_plan(self) -> None:
        counted = Counter((profile.country, profile.plan) for profile in self.profiles)
        found = reports.by_country_and_plan()
        self.assertEqual({(s.country, s.plan): s.users for s in found}, counted)
        self.assertEqual([s.users for s in found], sorted(counted.values(), reverse=True))

    def test_retention_counts_who_logged_in_so_late_or_later(self) -> None:
        found = reports.retention(date(2026, 1, 1), date(2026, 3, 31))
        for month in (1, 2, 3):
            cohort = [user for user in self.users if user.date_joined.month == month]
            rows = [row for row in found if row.month == date(2026, month, 1)]
            self.assertEqual([row.months_later for row in rows], list(range(len(rows))))
            self.assertGreaterEqual(len(rows), 8)
            for row in rows:
                later = [
                    user
                    for user in cohort
                    if user.last_login and user.last_login.month - month >= row.months_later
                ]
                self.assertEqual((row.joined, row.still_active), (len(cohort), len(later)))

    def test_each_is_one_query_on_analytics(self) -> None:
        ends = date(2026, 1, 1), date(2026, 6, 1)
        for report in (
            reports.totals,
            reports.by_country_and_plan,
            lambda: reports.sign_ups(*ends),
            lambda: reports.active_users(*ends),
            lambda: reports.retention(*ends),
        ):
            with CaptureQueriesContext(connections["analytics"]) as queries:
                report()
            self.assertEqual(len(queries), 1)

    def test_a_range_without_bounds_is_refused(self) -> None:
        for ends in (
            (date(2026, 2, 1), date(2026, 1, 31)),
            (date(2000, 1, 1), date(2026, 1, 1)),
        ):
            for report in (reports.sign_ups, reports.active_users, reports.retention):
                with self.subTest(ends), self.assertRaisesRegex(ValueError, "no range"):
                    report(*ends)
        with self.assertRaisesRegex(ValueError, "none of day, week, month"):
            reports.sign_ups(date(2026, 1, 1), date(2026, 1, 2), "year")  # type: ignore[arg-type]


def _user(dice: random.Random, start: datetime) -> UserAnalytics:
    joined = start + timedelta(minutes=dice.randrange(90 * 24 * 60))
    seen = joined + timedelta(minutes=dice.randrange(120 * 24 * 60))
    return UserAnalytics(
        user_id=uuid.UUID(int=dice.getrandbits(128), version=4),
        email="a@example.com",
        is_active=dice.random() < 0.9,
        is_staff=dice.random() < 0.1,
        date_joined=joined,
        last_login=seen if dice.random() < 0.8 else None,
    )


def _counted(times: list[datetime], start: date, end: date, bucket: str) -> list[reports.Count]:
    counted = Counter(_bucket(t.date(), bucket) for t in times if start <= t.date() <= end)
    days = [start + timedelta(days=number) for number in range((end - start).days + 1)]
    return [reports.Count(s, counted[s]) for s in sorted({_bucket(day, bucket) for day in days})]


def _bucket(day: date, bucket: str) -> date:
    if bucket == "week":
        return day - timedelta(days=day.weekday())
    return day.replace(day=1) if bucket == "month" else day
