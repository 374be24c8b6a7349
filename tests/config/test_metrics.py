"""/metrics: who may read it, what it counts, and that several workers are one site."""

import logging
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

from django.test import AsyncClient, SimpleTestCase, TestCase, override_settings
from prometheus_client.parser import text_string_to_metric_families

from sharding.testing import ShardedTestCase
from tests.config.isolated import SettingsTestCase
from tests.config.serving import Site
from tests.sharding.ids import id_on
from tests.support import server_down, wait_until
from users.models import Profile, User
from users.services import create_user, read_users_with_fallback

TOKEN = "0123456789abcdef01234567"
BEARER: dict[str, Any] = {"HTTP_AUTHORIZATION": f"Bearer {TOKEN}"}


def samples(text: str) -> dict[tuple[str, ...], float]:
    """The values of a page of metrics, by the metric's name and its labels' values."""
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def quiet(test: SimpleTestCase) -> None:
    """Leave out of the test's output what Django logs of answers that are refusals."""
    test.enterContext(mock.patch.object(logging.getLogger("django.request"), "disabled", True))


@override_settings(METRICS_TOKEN=TOKEN)
class AccessTests(TestCase):
    databases = {"default", "analytics", "shard_1", "shard_2", "shard_3"}

    def setUp(self) -> None:
        quiet(self)

    def status(self, **headers: Any) -> int:
        return self.client.get("/metrics", **headers).status_code

    def test_the_token(self) -> None:
        self.assertEqual(self.status(**BEARER), 200)
        for wrong in ("Bearer", f"Bearer {TOKEN}x", f"Basic {TOKEN}", TOKEN, "Bearer é", ""):
            self.assertEqual(self.status(HTTP_AUTHORIZATION=wrong), 401, wrong)
        self.assertEqual(self.client.post("/metrics", **BEARER).status_code, 405)

    def test_without_a_token_no_text_is_one(self) -> None:
        with self.settings(METRICS_TOKEN=""):
            for header in ("Bearer ", "Bearer", f"Bearer {TOKEN}"):
                self.assertEqual(self.status(HTTP_AUTHORIZATION=header), 401)

    def test_staff_alone(self) -> None:
        self.assertEqual(self.status(), 401)
        user = User.objects.create_user("a@example.com", "secret")
        self.client.force_login(user)
        self.assertEqual(self.status(), 401)
        User.objects.filter(pk=user.pk).update(is_staff=True)
        self.assertEqual(self.status(), 200)
        User.objects.filter(pk=user.pk).update(is_active=False)
        self.assertEqual(self.status(), 401)

    def test_while_the_primary_is_down(self) -> None:
        self.client.force_login(User.objects.create_superuser("b@example.com", "secret"))
        with server_down("default"):
            self.assertEqual(self.status(), 401)
            text = self.client.get("/metrics", **BEARER).content.decode()
        found = samples(text)
        self.assertEqual(found["database_up", "primary"], 0)
        self.assertEqual(found["database_up", "shard_1"], 1)
        self.assertNotIn(("sync_lag_seconds", "users"), found)

    def test_without_tls_but_not_redirected(self) -> None:
        with self.settings(SECURE_SSL_REDIRECT=True):
            self.assertEqual(self.status(**BEARER), 200)

    async def test_async(self) -> None:
        answer = await AsyncClient().get("/metrics", headers={"authorization": f"Bearer {TOKEN}"})
        self.assertEqual(answer.status_code, 200)


class TokenTests(SettingsTestCase):
    def test_one_that_can_be_guessed_is_refused(self) -> None:
        self.refuses({"METRICS_TOKEN": "hunter2"}, "METRICS_TOKEN has less than 20 characters")


@override_settings(METRICS_TOKEN=TOKEN)
class CountTests(ShardedTestCase):
    def setUp(self) -> None:
        quiet(self)

    def found(self) -> dict[tuple[str, ...], float]:
        return samples(self.client.get("/metrics", **BEARER).content.decode())

    def more(self, before: dict[tuple[str, ...], float], *name: str) -> float:
        return self.found().get(name, 0) - before.get(name, 0)

    def test_statements_by_database_and_kind(self) -> None:
        before = self.found()
        list(Profile.objects.filter(user_id=id_on("shard_2")))
        list(Profile.objects.across_shards())
        Profile.objects.across_shards().update(bio="")
        list(Profile.objects.across_shards().iterator())
        self.assertFalse(User.objects.filter(email="nobody").exists())
        after = self.found()

        def more(alias: str, kind: str) -> float:
            name = ("database_query_seconds_count", alias, kind)
            return after.get(name, 0) - before.get(name, 0)

        for shard, keyed in (("shard_1", 0), ("shard_2", 1), ("shard_3", 0)):
            # Besides these, what the metrics themselves ask: of each its log, twice, and of all
            # together whether they are there.
            self.assertEqual(more(shard, "keyed"), keyed + 2)
            self.assertEqual(more(shard, "fan-out"), 3 + 1)
        self.assertEqual(more("primary", "unsharded"), 1 + 2)
        widths = [
            after["database_fan_out_shards_count",] - before["database_fan_out_shards_count",]
        ]
        widths += [
            after["database_fan_out_shards_bucket", width]
            - before["database_fan_out_shards_bucket", width]
            for width in ("2.0", "3.0")
        ]
        self.assertEqual(widths, [3, 0, 3])

    def test_labels_name_no_user(self) -> None:
        user = create_user(email="c@example.com", id=id_on("shard_1"))
        for path in (f"/api/users/{user.id}", "/nothing-here", f"/nothing/{user.id}"):
            self.client.get(path)
            self.client.generic("STRANGE", path)
        text = self.client.get("/metrics", **BEARER).content.decode()
        for private in (str(user.id), user.email, "nothing", "STRANGE"):
            self.assertNotIn(private, text)
        self.assertIn("uuid:user_id", text)

    def test_reads_of_copies(self) -> None:
        before = self.found()
        read_users_with_fallback(limit=1)
        self.assertEqual(self.more(before, "database_fallback_reads_total"), 0)
        with server_down("default"), self.assertLogs("users"):
            read_users_with_fallback(limit=1)
        self.assertEqual(self.more(before, "database_fallback_reads_total"), 1)

    def test_the_logs_of_the_sync(self) -> None:
        before = self.found()
        user = create_user(email="d@example.com", id=id_on("shard_1"))
        User.objects.filter(pk=user.pk).update(name="Ada")
        self.assertEqual(self.more(before, "sync_log_entries", "users"), 2)
        self.assertEqual(self.more(before, "sync_log_entries", "profiles/shard_1"), 1)
        self.assertGreater(self.found()["sync_lag_seconds", "users"], 0)
        self.assertGreater(self.found()["sync_log_bytes", "users"], 0)


class SeveralWorkersTests(SimpleTestCase):
    def test_whichever_is_asked_answers_for_all(self) -> None:
        folder = self.enterContext(tempfile.TemporaryDirectory())
        env: dict[str, Any] = {"WEB_CONCURRENCY": "2", "METRICS_TOKEN": TOKEN, "TMPDIR": folder}
        site = Site(self, f"metrics-{os.getpid()}", **env)
        wait_until(lambda: len([*Path(folder).glob("metrics-*/counter_*.db")]) == 2, "both")
        asked = 40
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: site.get("/nothing-here"), range(asked)))
        for _ in range(6):
            answer = site.get("/metrics", Authorization=f"Bearer {TOKEN}")
            assert answer
            found = samples(answer.text)
            self.assertEqual(found["http_request_seconds_count", "GET", "", "404"], asked)
        # Both, of this scrape or an earlier one, have asked every database whether it is up.
        self.assertLessEqual(found["database_pool_connections", "shard_1", "in use"], 2)
        self.assertGreater(found["database_pool_connections", "shard_1", "idle"], 0)
        self.assertEqual(site.stop(), 0)
        self.assertEqual([*Path(folder).glob("metrics-*")], [])
