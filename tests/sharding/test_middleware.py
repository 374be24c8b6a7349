"""Which database a request works on, and what it may not ask."""

import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any
from unittest import mock

from asgiref.sync import iscoroutinefunction, sync_to_async
from django.contrib.auth.models import AnonymousUser
from django.db import connections
from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.test import AsyncClient, RequestFactory, SimpleTestCase, TestCase, override_settings
from django.urls import path as route
from django.utils.functional import SimpleLazyObject

from sharding.errors import OutsideAnalytics
from sharding.middleware import DatabaseSelectionMiddleware, get_request_database
from sharding.scope import authenticating

ALIASES = ("default", "shard_1", "analytics")


def ask(alias: str) -> str:
    """Send a statement; return what it answers."""
    with connections[alias].cursor() as cursor:
        cursor.execute("SELECT 'answer'")
        return cursor.fetchone()[0]


def answer(request: HttpRequest) -> HttpResponse:
    return HttpResponse(request.database)  # type: ignore[attr-defined]


async def answer_later(request: HttpRequest) -> HttpResponse:
    return answer(request)


def asking(request: HttpRequest) -> HttpResponseBase:
    """Ask the database that the query names, as a view of a team might."""
    return HttpResponse(ask(request.GET["ask"]))


async def asking_later(request: HttpRequest) -> HttpResponseBase:
    return HttpResponse(await sync_to_async(ask)(request.GET["ask"]))


def streaming(request: HttpRequest) -> HttpResponseBase:
    def parts() -> Iterator[str]:
        yield "first, "
        yield ask(request.GET["ask"])

    return StreamingHttpResponse(parts())


async def streaming_later(request: HttpRequest) -> HttpResponseBase:
    async def parts() -> AsyncIterator[str]:
        yield "first, "
        yield await sync_to_async(ask)(request.GET["ask"])

    return StreamingHttpResponse(parts())


def failing(request: HttpRequest) -> HttpResponseBase:
    raise RuntimeError("of the view")


urlpatterns = [
    route(f"{prefix}/{name}", view)  # type: ignore[arg-type]
    for prefix in ("api/analytics", "other")
    for name, view in {
        "sync": asking,
        "async": asking_later,
        "stream": streaming,
        "astream": streaming_later,
        "fail": failing,
    }.items()
]


class GetRequestDatabaseTests(SimpleTestCase):
    def test_by_path(self) -> None:
        for path, alias in {
            "/": "default",
            "/api/users/1": "default",
            "/api/analytics": "analytics",
            "/api/analytics/": "analytics",
            "/api/analytics/summary": "analytics",
            "/api/analytics/a/b?c=d": "analytics",
            "/api/analyticsX": "default",
            "/api/analytics-export": "default",
            "/api/analytics.json": "default",
            "/api/Analytics": "default",
            "/other/api/analytics": "default",
            "/?next=/api/analytics": "default",
        }.items():
            with self.subTest(path):
                self.assertEqual(get_request_database(RequestFactory().get(path)), alias)

    def test_by_any_method(self) -> None:
        request = RequestFactory().post("/api/analytics/summary")
        self.assertEqual(get_request_database(request), "analytics")

    @override_settings(ANALYTICS_PATHS=["/reports/", "/api/v2/analytics"])
    def test_paths_are_a_setting(self) -> None:
        found = [
            get_request_database(RequestFactory().get(path))
            for path in (
                "/reports/",
                "/reports/1",
                "/reports",
                "/api/v2/analytics/x",
                "/api/analytics",
            )
        ]
        self.assertEqual(found, ["analytics", "analytics", "default", "analytics", "default"])

    @override_settings(ANALYTICS_PATHS=[])
    def test_no_paths(self) -> None:
        self.assertEqual(get_request_database(RequestFactory().get("/api/analytics")), "default")

    def test_below_a_prefix_of_the_server(self) -> None:
        request = RequestFactory().get("/api/analytics", SCRIPT_NAME="/shop")
        self.assertEqual(request.path, "/shop/api/analytics")
        self.assertEqual(get_request_database(request), "analytics")

    @override_settings(DATABASE_APPS={"analytics": "shard_3"}, PRIMARY_DATABASE="shard_1")
    def test_aliases_are_settings(self) -> None:
        found = [get_request_database(RequestFactory().get(p)) for p in ("/", "/api/analytics")]
        self.assertEqual(found, ["shard_1", "shard_3"])


class DatabaseSelectionMiddlewareTests(SimpleTestCase):
    def test_synchronous(self) -> None:
        middleware = DatabaseSelectionMiddleware(answer)
        self.assertFalse(iscoroutinefunction(middleware))
        response = middleware(RequestFactory().get("/api/analytics"))
        assert isinstance(response, HttpResponse)
        self.assertEqual(response.content, b"analytics")

    async def test_asynchronous(self) -> None:
        middleware = DatabaseSelectionMiddleware(answer_later)
        self.assertTrue(iscoroutinefunction(middleware))
        coming = middleware(RequestFactory().get("/api/analytics"))
        assert not isinstance(coming, HttpResponseBase)
        response = await coming
        assert isinstance(response, HttpResponse)
        self.assertEqual(response.content, b"analytics")

    def test_each_request_anew(self) -> None:
        middleware = DatabaseSelectionMiddleware(answer)
        found = []
        for path in ("/api/analytics", "/", "/api/analytics"):
            response = middleware(RequestFactory().get(path))
            assert isinstance(response, HttpResponse)
            found.append(response.content)
        self.assertEqual(found, [b"analytics", b"default", b"analytics"])


class InstalledTests(SimpleTestCase):
    def setUp(self) -> None:
        self.enterContext(self.assertLogs("django.request"))  # "Not Found", kept off the screen

    def test_every_request_has_it(self) -> None:
        for path, alias in {"/no/page": "default", "/api/analytics/no/page": "analytics"}.items():
            request: Any = self.client.get(path).wsgi_request
            self.assertEqual(request.database, alias)

    async def test_under_asgi(self) -> None:
        request: Any = (await self.async_client.get("/api/analytics/no/page")).asgi_request
        self.assertEqual(request.database, "analytics")


@override_settings(ROOT_URLCONF=__name__)
class RefusalTests(TestCase):
    """Requests for reports that ask another database than analytics."""

    databases = "__all__"

    def setUp(self) -> None:
        # Refusals are errors of the view.
        self.enterContext(mock.patch.object(logging.getLogger("django.request"), "disabled", True))

    def assertRefused(self, name: str, alias: str) -> None:
        with self.assertRaisesRegex(OutsideAnalytics, f"/api/analytics/{name} asked"):
            response = self.client.get(f"/api/analytics/{name}?ask={alias}")
            b"".join(response)  # of a stream the error comes here

    def test_refused_below_analytics_and_nowhere_else(self) -> None:
        for name in ("sync", "async", "stream"):
            with self.subTest(name):
                for alias in ("default", "shard_1"):
                    self.assertRefused(name, alias)
                allowed = [f"/other/{name}?ask={alias}" for alias in ALIASES]
                for path in (*allowed, f"/api/analytics/{name}?ask=analytics"):
                    self.assertIn(b"answer", b"".join(self.client.get(path)))

    async def test_under_asgi(self) -> None:
        client = AsyncClient()
        for name in ("sync", "async"):
            with self.subTest(name), self.assertRaises(OutsideAnalytics):
                await client.get(f"/api/analytics/{name}?ask=default")
            response: Any = await client.get(f"/other/{name}?ask=default")
            self.assertEqual(response.content, b"answer")

    async def test_streamed_under_asgi(self) -> None:
        for path, refused in (("api/analytics", True), ("other", False)):
            response: Any = await AsyncClient().get(f"/{path}/astream?ask=default")
            parts = []
            try:
                async for part in response.streaming_content:
                    parts.append(part)
            except OutsideAnalytics:
                self.assertTrue(refused)
            else:
                self.assertFalse(refused)
            self.assertEqual(parts[0], b"first, ")

    def test_nothing_is_left_behind(self) -> None:
        self.assertRefused("sync", "default")
        with self.assertRaisesRegex(RuntimeError, "of the view"):
            self.client.get("/api/analytics/fail")
        self.assertRefused("stream", "default")
        unread = self.client.get("/api/analytics/stream?ask=default")
        parts = iter(unread)
        self.assertEqual(next(parts), b"first, ")
        # In the middle of a stream too: the thread goes on with other work.
        for alias in ALIASES:
            self.assertEqual(ask(alias), "answer")

    def test_a_fan_out_is_refused(self) -> None:
        from users.models import Profile

        def view(request: HttpRequest) -> HttpResponse:
            return HttpResponse(Profile.objects.across_shards().count())

        with self.assertRaises(OutsideAnalytics):
            DatabaseSelectionMiddleware(view)(RequestFactory().get("/api/analytics"))

    @override_settings(ANALYTICS_STRICT=False)
    def test_in_production_it_is_logged(self) -> None:
        with self.assertLogs("sharding.scope", "WARNING") as logs:
            response = self.client.get("/api/analytics/sync?ask=shard_1")
        self.assertEqual(response.content, b"answer")
        self.assertIn("/api/analytics/sync asked shard_1", logs.output[0])

    def test_who_asks_may_be_looked_up_on_the_primary(self) -> None:
        def lookup() -> AnonymousUser:
            ask("default")
            return AnonymousUser()

        def view(request: HttpRequest) -> HttpResponse:
            return HttpResponse(str(request.user.is_authenticated))

        request = RequestFactory().get("/api/analytics")
        request.user = SimpleLazyObject(lookup)  # type: ignore[assignment]
        response = DatabaseSelectionMiddleware(view)(request)
        assert isinstance(response, HttpResponse)
        self.assertEqual(response.content, b"False")

    def test_while_authenticating_the_primary_is_allowed_and_no_shard(self) -> None:
        def view(request: HttpRequest) -> HttpResponse:
            with authenticating():
                return HttpResponse(ask(request.GET["ask"]))

        middleware = DatabaseSelectionMiddleware(view)
        middleware(RequestFactory().get("/api/analytics?ask=default"))
        with self.assertRaises(OutsideAnalytics):
            middleware(RequestFactory().get("/api/analytics?ask=shard_1"))


@override_settings(ROOT_URLCONF=__name__, DEBUG=True)
class DevelopmentTests(TestCase):
    databases = "__all__"

    def test_says_which_databases_were_asked_and_how_long(self) -> None:
        response = self.client.get("/other/sync?ask=shard_1", headers={"X-Environment": "dev"})
        self.assertEqual(response["X-Database"], "primary")
        self.assertRegex(response["Server-Timing"], r'^shard_1;dur=\d+\.\d;desc="1 queries"$')
        response = self.client.get(
            "/api/analytics/sync?ask=analytics", headers={"X-Environment": "dev"}
        )
        self.assertEqual(response["X-Database"], "analytics")

    async def test_under_asgi(self) -> None:
        for name in ("sync", "async"):
            path, headers = f"/other/{name}?ask=default", {"X-Environment": "dev"}
            response = await AsyncClient().get(path, headers=headers)
            self.assertRegex(response["Server-Timing"], "^primary;dur=")

    def test_only_when_asked_and_only_with_debug(self) -> None:
        for debug, headers in ((True, {}), (False, {"X-Environment": "dev"})):
            with override_settings(DEBUG=debug):
                response = self.client.get("/other/sync?ask=default", headers=headers)
                self.assertNotIn("X-Database", response)
                self.assertNotIn("Server-Timing", response)
