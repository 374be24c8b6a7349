"""/healthz and /readyz."""

from typing import Any

from django.db import connections
from django.test import AsyncClient, SimpleTestCase, override_settings

from tests.outage import pointed_to

NOWHERE = {"HOST": "/nowhere"}


@override_settings(ALLOWED_HOSTS=["app.example.com"], SECURE_SSL_REDIRECT=True)
class ProbesTests(SimpleTestCase):
    """As load balancers ask: by IP address and without TLS."""

    databases = "__all__"

    def get(self, path: str) -> Any:
        return self.client.get(path, headers={"Host": "10.0.0.7:8000"})

    def ready(self) -> tuple[int, Any]:
        response = self.get("/readyz")
        return response.status_code, response.json()

    def test_other_pages_still_refuse_such_a_host(self):
        with override_settings(SECURE_SSL_REDIRECT=False), self.assertLogs("django.security"):
            self.assertEqual(self.get("/").status_code, 400)

    def test_healthz_touches_no_database(self):
        with pointed_to(dict.fromkeys(("default", "analytics", "shard_1"), NOWHERE)):
            response = self.get("/healthz")
        self.assertEqual((response.status_code, response.content), (200, b"ok"))

    def test_ready(self):
        code, body = self.ready()
        self.assertEqual((code, body["status"]), (200, "ready"))
        self.assertEqual(
            body["databases"],
            dict.fromkeys(("primary", "analytics", "shard_1", "shard_2", "shard_3"), "up"),
        )

    def test_degraded_while_a_shard_or_analytics_is_down(self):
        for alias in ("shard_2", "analytics"):
            with self.subTest(alias), pointed_to({alias: NOWHERE}):
                code, body = self.ready()
                self.assertEqual((code, body["status"]), (200, "degraded"))
                self.assertEqual(body["databases"][alias], "down")

    def test_a_server_that_is_another_shards_is_no_use(self):
        wrong = {key: connections["shard_1"].settings_dict[key] for key in ("HOST", "PORT", "NAME")}
        with pointed_to({"shard_2": wrong}):
            code, body = self.ready()
        self.assertEqual((code, body["status"]), (200, "degraded"))
        down = [name for name, state in body["databases"].items() if state == "down"]
        self.assertEqual(down, ["shard_2"])

    def test_unavailable_while_the_primary_is_down(self):
        with pointed_to({"default": NOWHERE}), self.assertLogs("django.request"):
            code, body = self.ready()
        self.assertEqual((code, body["status"]), (503, "unavailable"))
        self.assertEqual(body["databases"]["primary"], "down")

    async def test_under_asgi(self):
        client = AsyncClient(headers={"Host": "10.0.0.7"})
        self.assertEqual((await client.get("/healthz")).status_code, 200)
        self.assertEqual((await client.get("/readyz")).status_code, 200)
