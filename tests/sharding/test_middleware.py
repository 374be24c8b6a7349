"""Which database a request works on."""

from typing import Any

from asgiref.sync import iscoroutinefunction
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.test import RequestFactory, SimpleTestCase, override_settings

from sharding.middleware import DatabaseSelectionMiddleware, get_request_database


def answer(request: HttpRequest) -> HttpResponse:
    return HttpResponse(request.database)  # type: ignore[attr-defined]


async def answer_later(request: HttpRequest) -> HttpResponse:
    return answer(request)


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
