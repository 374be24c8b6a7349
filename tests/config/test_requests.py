"""The log of the requests: ids that hold its lines together, and nothing that is private."""

import io
import json
import logging
import logging.config
import os
from typing import Any
from unittest import mock

from django.http import HttpResponse
from django.test import AsyncClient, SimpleTestCase, override_settings
from django.urls import path

from config import logs
from sharding.errors import DatabaseUnavailable
from sharding.testing import ShardedTestCase
from tests.config.isolated import SettingsTestCase
from tests.config.serving import Site
from tests.sharding.ids import id_on
from users.models import Profile

logger = logging.getLogger("tests.config.test_requests")


def talk(request: Any) -> HttpResponse:
    logger.warning("Here I am.")
    list(Profile.objects.filter(user_id=id_on("shard_2")))
    return HttpResponse("hello")


def fail(request: Any) -> HttpResponse:
    raise RuntimeError("broken")


urlpatterns = [path("talk", talk), path("fail", fail)]


class LogTestCase(ShardedTestCase):
    """What is logged, as one object a line."""

    def setUp(self) -> None:
        configured = logs.configuration(json=True)["handlers"]["console"]
        formatter = logs.configuration(json=True)["formatters"]["json"]
        self.output = io.StringIO()
        handler = logging.StreamHandler(self.output)
        handler.setFormatter(logging.config.DictConfigurator({}).configure_formatter(formatter))
        self.assertEqual(configured["filters"], ["context"])
        handler.addFilter(logs.Context())
        requests = logging.getLogger("config.requests")
        self.enterContext(mock.patch.object(logging.getLogger(), "handlers", [handler]))
        self.addCleanup(requests.setLevel, requests.level)
        requests.setLevel("INFO")

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.output.getvalue().splitlines()]


@override_settings(ROOT_URLCONF="tests.config.test_requests")
class RequestTests(LogTestCase):
    def test_one_line_with_what_was_asked(self) -> None:
        answer = self.client.get("/talk?token=hunter2")
        first, second = self.lines()
        self.assertEqual(first["message"], "Here I am.")
        self.assertEqual(second["message"], "GET /talk 200")
        for line in (first, second):
            self.assertEqual(line["request_id"], answer["X-Request-ID"])
            self.assertLessEqual({"timestamp", "level", "logger"}, {*line})
        self.assertEqual((second["method"], second["status"]), ("GET", 200))
        self.assertEqual(second["databases"]["shard_2"]["queries"], 1)
        self.assertGreater(second["ms"], second["databases"]["shard_2"]["ms"])
        self.assertNotIn("hunter2", self.output.getvalue())

    def test_an_answer_that_django_logs(self) -> None:
        answer = self.client.get("/nothing?token=hunter2")
        first, second = self.lines()
        self.assertEqual({first["logger"], second["logger"]}, {"config.requests", "django.request"})
        self.assertEqual({first["request_id"], second["request_id"]}, {answer["X-Request-ID"]})
        self.assertNotIn("hunter2", self.output.getvalue())

    def test_ids(self) -> None:
        given = self.client.get("/talk", headers={"X-Request-ID": "from-the.proxy_1"})
        self.assertEqual(given["X-Request-ID"], "from-the.proxy_1")
        for wrong in ("", "a b", "x" * 65, "new\tline", '"}', "é"):
            made = self.client.get("/talk", headers={"X-Request-ID": wrong})["X-Request-ID"]
            self.assertRegex(made, r"\A[0-9a-f]{32}\Z")
        found = {self.client.get("/talk")["X-Request-ID"] for _ in range(3)}
        self.assertEqual(len(found), 3)

    def test_an_error(self) -> None:
        self.client.raise_request_exception = False
        answer = self.client.get("/fail?token=hunter2")
        self.assertEqual(answer.status_code, 500)
        error, line = self.lines()
        self.assertIn("RuntimeError: broken", error["exc_info"])
        self.assertEqual(error["request_id"], answer["X-Request-ID"])
        self.assertEqual((line["status"], line["request_id"]), (500, answer["X-Request-ID"]))
        self.assertNotIn("hunter2", self.output.getvalue())
        self.assertEqual(logs.current_request.get(), "")

    async def test_async(self) -> None:
        answer = await AsyncClient().get("/talk")
        first, second = self.lines()
        self.assertEqual({first["request_id"], second["request_id"]}, {answer["X-Request-ID"]})
        self.assertEqual(second["databases"]["shard_2"]["queries"], 1)


class AliasTests(LogTestCase):
    def test_the_database_that_an_error_names(self) -> None:
        error = DatabaseUnavailable("Database shard_2 cannot be reached.", alias="shard_2")
        logger.error("%s", error)
        try:
            raise error
        except DatabaseUnavailable:
            logger.exception("It failed.")
        logger.error("Nothing with %s.", "a database")
        self.assertEqual([line["alias"] for line in self.lines()], ["shard_2", "shard_2", ""])

    def test_for_people(self) -> None:
        record = logging.makeLogRecord({"name": "sync", "alias": "shard_2", "msg": "Slow."})
        logs.Context().filter(record)
        text = logs.configuration(json=False)["formatters"]["text"]["format"]
        self.assertTrue(logging.Formatter(text).format(record).endswith(" sync [shard_2] Slow."))


class FormatTests(SettingsTestCase):
    def test_by_debug_unless_it_is_said(self) -> None:
        for environ, expected in (
            ({}, "text"),
            ({"DEBUG": "false", "SECRET_KEY": "k" * 50, "ALLOWED_HOSTS": "a"}, "json"),
            ({"LOG_FORMAT": "json"}, "json"),
        ):
            self.assertEqual(self.read(environ, "LOG_FORMAT"), [expected])
        self.refuses({"LOG_FORMAT": "xml"}, "LOG_FORMAT must be json or text")


class ServerTests(SimpleTestCase):
    def test_each_line_of_the_site_is_an_object(self) -> None:
        site = Site(self, f"requests-{os.getpid()}")
        site.get("/nothing-here", X_Request_ID="mine")
        self.assertEqual(site.stop(), 0)
        lines = site.lines()
        self.assertIn("mine", [line.get("request_id") for line in lines])
        self.assertIn("gunicorn.error", {line["logger"] for line in lines})
        self.assertNotIn("GET /healthz 200", {line["message"] for line in lines})
