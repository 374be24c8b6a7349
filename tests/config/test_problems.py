"""How the site answers when something fails."""

import json
from typing import Any

from django.core.exceptions import ObjectDoesNotExist, ValidationError
from django.db import DataError, IntegrityError, OperationalError
from django.http import HttpRequest, HttpResponse
from django.test import Client, SimpleTestCase, override_settings
from django.urls import path as route
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from config.problems import respond
from sharding.errors import (
    DatabaseUnavailable,
    InvalidShardKey,
    InvalidSlotMap,
    ShardKeyRequired,
    SlotMoved,
)

handler400 = "config.problems.bad_request"
handler404 = "config.problems.not_found"
handler500 = "config.problems.server_error"

DOWN = DatabaseUnavailable("Database shard_1 at /secret/socket is down.", alias="shard_1")
raised: Exception = DOWN


class Failing(APIView):
    permission_classes = []

    def get(self, request: Request) -> Response:
        raise raised


def failing(request: HttpRequest) -> HttpResponse:
    raise raised


urlpatterns = [
    route("api/failing", Failing.as_view()),
    route("api/plain", failing),
    route("page", failing),
]


def answer(error: Exception) -> Any:
    response = respond(error, {})
    assert response is not None
    return response.status_code, response.data


class RespondTests(SimpleTestCase):
    def test_what_passes_by_itself_is_503_and_retried(self):
        moving = SlotMoved("x", alias="shard_1", slot=1)
        for error in (DOWN, OperationalError("deadlock"), moving, InvalidSlotMap("x")):
            with self.subTest(error), self.assertLogs("config.problems", "ERROR"):
                response = respond(error, {})
                assert response is not None
                self.assertEqual((response.status_code, response["Retry-After"]), (503, "5"))
                self.assertNotIn("secret", str(response.data))

    def test_other_errors_of_databases(self):
        for error, code in (
            (IntegrityError('violates "users_email"\nDETAIL:  Key (email)=(x) is there.'), 409),
            (DataError("out of range"), 400),
        ):
            with self.subTest(error), self.assertLogs("config.problems") as logs:
                found, data = answer(error)
                self.assertEqual(found, code)
                self.assertNotIn("email", str(data))
                self.assertNotIn("Key", logs.output[0])
        self.assertEqual(answer(InvalidShardKey("no UUID"))[0], 400)
        # Deleted by another request, just after this one had found it.
        self.assertEqual(answer(ObjectDoesNotExist())[0], 404)

    def test_mistakes_of_ours_are_not_hidden(self):
        for error in (ShardKeyRequired("x"), KeyError("x")):
            self.assertIsNone(respond(error, {}))

    def test_fields_are_named_by_their_path(self):
        code, data = answer(ValidationError({"email": ["taken", "ugly"], "name": ["long"]}))
        self.assertEqual(code, 400)
        self.assertEqual(
            [(error["field"], error["detail"]) for error in data["errors"]],
            [("email", "taken"), ("email", "ugly"), ("name", "long")],
        )


@override_settings(ROOT_URLCONF=__name__)
class PagesTests(SimpleTestCase):
    def setUp(self) -> None:
        self.client = Client(raise_request_exception=False)
        self.enterContext(self.assertLogs())

    def get(self, path: str, error: Exception = DOWN, **headers: str) -> Any:
        global raised
        raised = error
        return self.client.get(path, headers=headers)

    def test_a_database_that_is_down(self):
        for path, kind in (
            ("/api/failing", "application/problem+json"),
            ("/api/plain", "application/problem+json"),
            ("/page", "text/plain; charset=utf-8"),
        ):
            with self.subTest(path):
                response = self.get(path)
                self.assertEqual((response.status_code, response["Retry-After"]), (503, "5"))
                self.assertEqual(response["Content-Type"], kind)
                self.assertContains(response, "shard_1", status_code=503)
                self.assertNotContains(response, "secret", status_code=503)

    def test_what_nobody_expects(self):
        for path in ("/api/failing", "/api/plain"):
            response = self.get(path, RuntimeError("secret"))
            self.assertEqual(response.status_code, 500)
            self.assertEqual(json.loads(response.content)["status"], 500)
            self.assertNotContains(response, "secret", status_code=500)
        self.assertEqual(self.get("/page", RuntimeError("secret")).status_code, 500)

    def test_no_such_address(self):
        self.assertEqual(self.get("/api/none").json()["status"], 404)
        self.assertNotIn("json", self.get("/none")["Content-Type"])

    @override_settings(
        MIDDLEWARE=["django.middleware.common.CommonMiddleware"], ALLOWED_HOSTS=["app.example.com"]
    )
    def test_another_host(self):
        self.assertEqual(self.get("/api/plain", Host="evil.example.com").json()["status"], 400)
