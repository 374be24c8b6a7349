"""The admin's index: databases, sync, charts; and who may ask for a sync."""

import json
import re
from datetime import timedelta
from typing import Any
from unittest.mock import patch

from django.contrib.auth.models import Permission
from django.contrib.messages import get_messages
from django.contrib.staticfiles import finders
from django.db import connections
from django.test import Client, SimpleTestCase
from django.urls import reverse
from django.utils import timezone

from analytics.dashboard.charts import countries_and_plans
from analytics.models import ProfileAnalytics, SyncRun, UserAnalytics
from analytics.reports import Segment
from analytics.sync.now import Outcome, sync_now
from analytics.sync.result import SyncResult
from sharding import slot_cache
from sharding.testing import ShardedTestCase
from tests.sharding.methods.world import CommittedWorldTestCase
from tests.support import server_down
from users.models import User

INDEX = reverse("admin:index")
NOW = reverse("admin:analytics_syncrun_now")


def staff(*codenames: str) -> User:
    user = User.objects.create_user(f"{'-'.join(codenames) or 'none'}@example.com", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
    return user


class DashboardTests(ShardedTestCase):
    admin: User

    @classmethod
    def setUpTestData(cls) -> None:
        slot_cache.current()
        cls.admin = User.objects.create_superuser("admin@example.com")
        day = timezone.now() - timedelta(days=2)
        for number, (country, plan) in enumerate([("CH", "pro"), ("CH", "free"), ("", "team")]):
            key = f"0000000{number}-0000-4000-8000-000000000000"
            UserAnalytics.objects.create(
                user_id=key,
                email=f"{number}@x.org",
                is_active=True,
                is_staff=False,
                date_joined=day,
            )
            ProfileAnalytics.objects.create(
                user_id=key,
                shard=f"shard_{1 + number // 2}",
                country=country,
                plan=plan,
                created_at=day,
                updated_at=day,
            )
        SyncRun.objects.create(mode="full", source="users", error="It stopped.")

    def setUp(self) -> None:
        self.client.force_login(self.admin)

    def charts(self) -> list[tuple[list[str], dict[str, list[int]]]]:
        charts = [json.loads(each.data) for each in self.client.get(INDEX).context["charts"]]
        return [
            (chart["labels"], {each["label"]: each["data"] for each in chart["datasets"]})
            for chart in charts
        ]

    def test_shows_every_database(self) -> None:
        response = self.client.get(INDEX)
        states = {state.label: state for state in response.context["databases"]}
        self.assertEqual([*states], ["primary", "analytics", "shard_1", "shard_2", "shard_3"])
        for state in states.values():
            self.assertTrue(state.up)
            self.assertGreater(state.size, 1_000_000)
            self.assertGreaterEqual(state.rows, 0)
            self.assertGreaterEqual(state.pool_max, state.pool_in_use)
        self.assertEqual([states[f"shard_{n}"].slots for n in (1, 2, 3)], [334, 333, 333])
        self.assertContains(response, 'class="dashboard-state up"', 5)

    def test_draws_what_analytics_counts(self) -> None:
        joined, countries, shards = self.charts()
        self.assertEqual(len(joined[0]), 30)
        self.assertEqual(joined[1]["Sign-ups"][-3:], [3, 0, 0])
        self.assertEqual(
            countries, (["CH", "none"], {"free": [1, 0], "pro": [1, 0], "team": [0, 1]})
        )
        self.assertEqual(shards, (["shard_1", "shard_2"], {"Users": [2, 1]}))

    def test_shows_the_sync(self) -> None:
        response = self.client.get(INDEX)
        sources = ["users", "profiles/shard_1", "profiles/shard_2", "profiles/shard_3"]
        self.assertEqual([lag.source for lag in response.context["lags"]], sources)
        self.assertContains(response, "It stopped.")
        self.assertContains(response, "Sync now")

    def test_asks_each_shard_for_its_state_and_the_age_of_its_log(self) -> None:
        self.client.get(INDEX)
        with self.assertNumQueries(2, using="shard_1"):
            self.client.get(INDEX)

    def test_goes_on_without_a_shard(self) -> None:
        with server_down("shard_2"):
            response = self.client.get(INDEX)
        self.assertContains(response, "shard_2 cannot be reached. Everything on the other")
        self.assertContains(response, 'class="dashboard-state down"', 1)
        self.assertEqual(len(response.context["charts"]), 3)
        self.assertEqual([lag.age is None for lag in response.context["lags"]], [0, 0, 1, 0])

    def test_goes_on_without_analytics(self) -> None:
        with server_down("analytics"):
            response = self.client.get(INDEX)
        self.assertContains(response, "No charts: they come from analytics")
        self.assertContains(response, 'class="dashboard-state down"', 1)

    def test_shows_each_what_they_may_see(self) -> None:
        shown = {
            (): [],
            ("view_syncrun",): ["Last runs"],
            ("view_useranalytics",): ["Sign-ups per day"],
            ("add_syncrun",): ["Sync now"],
        }
        texts = {text for texts in shown.values() for text in texts}
        for codenames, expected in shown.items():
            self.client.force_login(staff(*codenames))
            page = self.client.get(INDEX).content.decode()
            self.assertEqual([text for text in sorted(texts) if text in page], expected)

    def test_nobody_else_sees_it(self) -> None:
        self.client.force_login(User.objects.create_user("ada@example.com"))
        self.assertRedirects(self.client.get(INDEX), f"{reverse('admin:login')}?next={INDEX}")


class AssetTests(ShardedTestCase):
    """Nothing comes from another host."""

    def test_pages_name_no_other_host(self) -> None:
        self.client.force_login(User.objects.create_superuser("admin@example.com"))
        ada = User.objects.create_user("ada@example.com")
        for url in (
            *(INDEX, reverse("admin:users_profile_changelist")),
            *(reverse(f"admin:users_{m}_change", args=[ada.pk]) for m in ("user", "profile")),
            *(reverse(f"admin:users_{m}_add") for m in ("user", "profile", "activity")),
            reverse("admin:users_profile_delete", args=[ada.pk]),
        ):
            page = self.client.get(url).content.decode()
            self.assert_local(url, page)
            for asset in set(re.findall(r'(?:href|src)="/static/([^"]+\.css)"', page)):
                found = finders.find(asset)
                assert isinstance(found, str), asset
                with open(found) as file:
                    self.assert_local(asset, file.read())

    def assert_local(self, name: str, text: str) -> None:
        """Fail if a browser would ask another host: for what is linked, not for namespaces."""
        loaded = re.findall(
            r"""(?:src|href|action|srcset)\s*=\s*["'](?:https?:)?//[^"']+"""
            r"""|url\(\s*["']?(?:https?:)?//[^)]+|@import[^;]+//[^;]+""",
            text,
        )
        self.assertEqual(loaded, [], name)


class SyncNowViewTests(ShardedTestCase):
    admin: User

    @classmethod
    def setUpTestData(cls) -> None:
        cls.admin = User.objects.create_superuser("admin@example.com")

    def setUp(self) -> None:
        self.client.force_login(self.admin)
        self.sync = self.enterContext(patch("analytics.admin.sync_now"))

    def said(self, outcome: Outcome, *, finished: bool = True) -> str:
        if finished:
            outcome.finished.set()
        self.sync.return_value = outcome
        response = self.client.post(NOW)
        self.assertRedirects(response, INDEX)
        return str([*get_messages(response.wsgi_request)][-1])

    def test_says_what_was_done(self) -> None:
        result = SyncResult(upserted=3, deleted=1)
        self.assertEqual(self.said(Outcome(result)), "Synced: 3 rows copied, 1 deleted.")
        self.assertIn("Not synced: users.", self.said(Outcome(result, failed=["users"])))
        self.assertIn("Another sync is running", self.said(Outcome(running_already=True)))
        self.assertIn("The sync goes on", self.said(Outcome(), finished=False))

    def test_needs_a_post_a_token_and_the_permission(self) -> None:
        strict = Client(enforce_csrf_checks=True)
        self.enterContext(self.assertLogs("django.request"))
        self.enterContext(self.assertLogs("django.security.csrf"))
        for client, user, method, status in (
            (self.client, self.admin, "get", 405),
            (strict, self.admin, "post", 403),
            (self.client, staff("view_syncrun"), "post", 403),
            (self.client, User.objects.create_user("ada@example.com"), "post", 302),
        ):
            client.force_login(user)
            self.assertEqual(getattr(client, method)(NOW).status_code, status)
        self.sync.assert_not_called()
        self.client.force_login(staff("add_syncrun"))
        self.assertIn("Synced", self.said(Outcome()))


class SyncNowTests(CommittedWorldTestCase):
    """The sync itself, in its own thread."""

    def setUp(self) -> None:
        super().setUp()
        self.addCleanup(self.clear)

    def clear(self) -> None:
        for alias in connections:
            with connections[alias].cursor() as cursor:
                cursor.execute(
                    "SELECT tablename FROM pg_tables WHERE schemaname = current_schema()"
                    " AND tablename LIKE 'analytics\\_%' AND tablename <> 'analytics_migrations'"
                )
                names = ", ".join(row[0] for row in cursor.fetchall())
                if names:
                    cursor.execute(f"TRUNCATE {names}")

    def test_copies_what_changed(self) -> None:
        outcome = sync_now(wait=20)
        self.assertTrue(outcome.finished.is_set())
        self.assertEqual((outcome.failed, outcome.running_already), ([], False))
        self.assertEqual(ProfileAnalytics.objects.count(), 6)
        self.assertEqual(SyncRun.objects.count(), 4)

    def test_runs_once(self) -> None:
        with connections["analytics"].cursor() as cursor:
            from analytics.sync.lock import LOCK

            cursor.execute("SELECT pg_advisory_lock(%s)", [LOCK])
            outcome = sync_now(wait=20)
            self.assertTrue(outcome.running_already)
            self.assertEqual(SyncRun.objects.count(), 0)
            cursor.execute("SELECT pg_advisory_unlock(%s)", [LOCK])


class ChartTests(SimpleTestCase):
    def test_puts_small_countries_together(self) -> None:
        segments = [Segment(f"{n:02}", "free", 100 - n) for n in range(20)]
        data: dict[str, Any] = json.loads(countries_and_plans(segments).data)
        self.assertEqual(len(data["labels"]), 13)
        self.assertEqual(data["labels"][-1], "others")
        self.assertEqual(sum(data["datasets"][0]["data"]), sum(100 - n for n in range(20)))

    def test_no_users(self) -> None:
        self.assertEqual(countries_and_plans([]).summary, "No users yet")
