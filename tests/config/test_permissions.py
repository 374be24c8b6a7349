"""Who may do what: every address of the site, for everybody, with a session and with a token.

The addresses come from the URL configuration. One that the tables below do not know fails the test:
whoever adds it says here who may use it.
"""

import json
import logging
from collections.abc import Iterator
from typing import Any, NamedTuple
from unittest import mock
from uuid import uuid4

from django.contrib import admin
from django.contrib.auth.models import Group, Permission
from django.contrib.contenttypes.models import ContentType
from django.core.cache import cache
from django.db import models
from django.template.response import SimpleTemplateResponse
from django.test import Client, TestCase
from django.urls import URLPattern, URLResolver, get_resolver, reverse
from django.utils import timezone
from drf_spectacular.generators import SchemaGenerator
from knox.models import AuthToken

from analytics.models import ProfileAnalytics, SyncRun, UserAnalytics
from tests.users.api import with_token
from users.models import Activity, Profile, User
from users.services import create_user

# Everything addresses what belongs to "own". "former" was a superuser and may log in no more,
# "bare" has no permission, "staff" has all of them.
ROLES = ("anonymous", "former", "own", "other", "bare", "staff", "root")

# For each role a status, "login" for being sent to the login page, or A: the permissions allow it.
EVERYBODY = "A A A A A A A"
STAFF = "401 401 403 403 403 A A"
OWNER_AND_STAFF = "401 401 A 404 403 A A"
WITH_TOKEN = "401 401 A A A A A"

API = {
    "api-login": {"POST": EVERYBODY},
    "api-logout": {"POST": WITH_TOKEN},
    "api-logout-all": {"POST": WITH_TOKEN},
    "api-users": {"GET": STAFF, "POST": STAFF},
    "api-user": {"GET": OWNER_AND_STAFF, "PATCH": OWNER_AND_STAFF, "DELETE": OWNER_AND_STAFF},
    "api-activities": {"GET": OWNER_AND_STAFF, "POST": OWNER_AND_STAFF},
    "api-profiles": {"GET": STAFF},
    "api-analytics-summary": {"GET": STAFF},
    "api-analytics-signups": {"GET": STAFF},
    "api-analytics-active": {"GET": STAFF},
    "api-analytics-segments": {"GET": STAFF},
    "api-analytics-retention": {"GET": STAFF},
    "api-shards": {"GET": STAFF},
    "api-schema": {"GET": EVERYBODY},
    "api-docs": {"GET": EVERYBODY},
}
# A session is not ended by what ends tokens.
TOKENS_ALONE = ("api-logout", "api-logout-all")
# A token that is worth nothing is refused, also where none is needed.
NO_TOKEN_NEEDED = ("api-schema", "api-docs")

ADMIN_PAGE = "login login login login A A A"
NEEDS_PERMISSION = "login login login login 403 A A"
NOBODY = "login login login login 403 403 403"
NOT_THERE = "login login login login 404 404 404"

PAGES = {
    "": EVERYBODY,
    "healthz": EVERYBODY,
    "readyz": EVERYBODY,
    "metrics": "401 401 401 401 A A A",
    "admin/": ADMIN_PAGE,
    "admin/search/": ADMIN_PAGE,
    "admin/login/": EVERYBODY,
    "admin/logout/": EVERYBODY,
    "admin/password_change/": ADMIN_PAGE,
    "admin/password_change/done/": ADMIN_PAGE,
    "admin/autocomplete/": NEEDS_PERMISSION,
    "admin/jsi18n/": ADMIN_PAGE,
    "admin/r/<path:content_type_id>/<path:object_id>/": NOT_THERE,
    "admin/^(?P<app_label>auth|users|knox|analytics)/$": "login login login login 404 A A",
    "admin/(?P<url>.*)$": NOT_THERE,
    "admin/users/user/<id>/password/": NEEDS_PERMISSION,
    "admin/analytics/syncrun/now/": NEEDS_PERMISSION,
}
POSTED = ("admin/analytics/syncrun/now/",)  # the others are read
# What the pages of a model need; those of copies and tokens cannot be used to write.
MODEL_PAGES = dict.fromkeys(("changelist", "add", "change", "delete", "history"), NEEDS_PERMISSION)
READ_ONLY = MODEL_PAGES | {"add": NOBODY, "delete": NOBODY}
MODELS: dict[type[models.Model], dict[str, str]] = {
    Group: MODEL_PAGES,
    User: MODEL_PAGES,
    Profile: MODEL_PAGES,
    Activity: MODEL_PAGES,
    AuthToken: MODEL_PAGES | {"add": NOBODY},
    UserAnalytics: READ_ONLY,
    ProfileAnalytics: READ_ONLY,
    SyncRun: READ_ONLY,
}


class Route(NamedTuple):
    """An address: how it is written, its name, its view."""

    path: str
    name: str | None
    view: Any

    @property
    def methods(self) -> list[str]:
        """What a view of the API answers to."""
        handled = (name for name in self.view.cls.http_method_names if hasattr(self.view.cls, name))
        return [name.upper() for name in handled if name not in ("options", "head")]


def routes(resolver: URLResolver | None = None, prefix: str = "") -> Iterator[Route]:
    for pattern in (resolver or get_resolver()).url_patterns:
        path = f"{prefix}{pattern.pattern}"
        if isinstance(pattern, URLResolver):
            yield from routes(pattern, path)
        elif isinstance(pattern, URLPattern):
            yield Route(path, pattern.name, pattern.callback)


class PermissionTests(TestCase):
    databases = "__all__"
    users: dict[str, User | None]
    objects: dict[type[models.Model], models.Model]

    @classmethod
    def setUpTestData(cls) -> None:
        cls.users = {
            "anonymous": None,
            "former": create_user(
                email="former@example.com", is_staff=True, is_superuser=True, is_active=False
            ),
            "own": create_user(email="own@example.com"),
            "other": create_user(email="other@example.com"),
            "bare": create_user(email="bare@example.com", is_staff=True),
            "staff": create_user(email="staff@example.com", is_staff=True),
            "root": create_user(email="root@example.com", is_staff=True, is_superuser=True),
        }
        staff, own = cls.users["staff"], cls.users["own"]
        assert staff and own
        staff.user_permissions.set(Permission.objects.all())
        now = timezone.now()
        copied = {"user_id": own.pk, "synced_at": now}
        flags = {"is_active": True, "is_staff": False, "date_joined": now}
        dates = {"created_at": now, "updated_at": now}
        cls.objects = {
            Group: Group.objects.create(name="group"),
            User: own,
            Profile: Profile.objects.get(pk=own.pk),
            Activity: Activity.objects.create(profile_id=own.pk, kind="login"),
            AuthToken: AuthToken.objects.create(own)[0],
            UserAnalytics: UserAnalytics.objects.create(**copied, **flags),
            ProfileAnalytics: ProfileAnalytics.objects.create(**copied, **dates, shard="shard_1"),
            SyncRun: SyncRun.objects.create(mode="log"),
        }

    def setUp(self) -> None:
        cache.clear()
        for name in ("django.request", "django.security.csrf"):
            self.enterContext(mock.patch.object(logging.getLogger(name), "disabled", True))
        # Allowed, it would delete whom the others ask for.
        self.enterContext(mock.patch("users.api.accounts.delete_user", return_value=True))
        self.own = self.objects[User]

    def client_of(self, role: str, *, token: bool = False, csrf: bool = False) -> Client:
        user = self.users[role]
        if user and token:
            return with_token(user)
        client = Client(enforce_csrf_checks=csrf)
        if user:
            client.force_login(user)
        return client

    def outcome(self, response: Any) -> str:
        if response.status_code in (401, 403, 404):
            return str(response.status_code)
        if response.status_code == 302 and response["Location"].startswith("/admin/login/"):
            return "login"
        self.assertLess(response.status_code, 500, response.content[:500])
        return "A"

    def api_path(self, route: Route) -> str:
        needed = {"user_id": self.own.pk} if "<uuid:user_id>" in route.path else {}
        return reverse(str(route.name), kwargs=needed)

    def test_every_address_is_in_a_table(self) -> None:
        unknown = [
            route.path
            for route in routes()
            if self.expected_page(route) is None and not self.expected_api(route)
        ]
        self.assertEqual(unknown, [], "say in this module who may use them")

    def test_every_model_of_the_admin_is_in_the_table(self) -> None:
        self.assertEqual({*MODELS}, {*admin.site._registry})

    def test_every_method_of_the_api_is_in_the_table(self) -> None:
        for route in routes():
            if expected := self.expected_api(route):
                self.assertEqual({*expected}, {*route.methods}, route.name)

    def expected_api(self, route: Route) -> dict[str, str]:
        return API.get(route.name or "", {}) if route.path.startswith("api/") else {}

    def expected_page(self, route: Route) -> str | None:
        if route.path in PAGES:
            return PAGES[route.path]
        if model := self.model_of(route):
            # Where the address of the change page is left short, one is sent there.
            page = (route.name or "").rpartition("_")[2]
            return MODELS[model].get(page) if page else ADMIN_PAGE
        return None

    def model_of(self, route: Route) -> type[models.Model] | None:
        for model in MODELS:
            if route.path.startswith(f"admin/{model._meta.app_label}/{model._meta.model_name}/"):
                return model
        return None

    def page_path(self, route: Route) -> str:
        content_type = ContentType.objects.get_for_model(User)
        model = self.model_of(route)
        parts = {
            "<path:content_type_id>": content_type.pk,
            "<path:object_id>": self.objects[model].pk if model else self.own.pk,
            "<id>": self.own.pk,
            "^(?P<app_label>auth|users|knox|analytics)/$": "users/",
            "(?P<url>.*)$": "no/such/page",
        }
        path = route.path
        for part, value in parts.items():
            path = path.replace(part, str(value))
        query = "?app_label=users&model_name=activity&field_name=profile"
        return f"/{path}{query if path == 'admin/autocomplete/' else ''}"

    def test_pages(self) -> None:
        # What stands on them is tested elsewhere, and takes long.
        self.enterContext(mock.patch.object(SimpleTemplateResponse, "rendered_content", ""))
        outcome = self.enterContext(mock.patch("analytics.admin.sync_now")).return_value
        outcome.finished.is_set.return_value = False
        clients = [self.client_of(role) for role in ROLES]
        for route in routes():
            if not (expected := self.expected_page(route)):
                continue
            path = self.page_path(route)
            method = "POST" if route.path in POSTED else "GET"
            found = [self.outcome(client.generic(method, path)) for client in clients]
            with self.subTest(path):
                self.assertEqual(" ".join(found), expected)

    def test_a_token_opens_no_page(self) -> None:
        client = self.client_of("root", token=True)
        for route in routes():
            if expected := self.expected_page(route):
                with self.subTest(route.path):
                    outcome = self.outcome(client.get(self.page_path(route)))
                    self.assertEqual(outcome, expected.split()[0])

    def test_the_api(self) -> None:
        # What stands in it is tested elsewhere, and takes long.
        self.enterContext(mock.patch.object(SchemaGenerator, "get_schema", return_value={}))
        for route in routes():
            for method, of_tokens in self.expected_api(route).items():
                for token in (False, True):
                    alone = route.name in TOKENS_ALONE and not token
                    expected = " ".join(["401"] * len(ROLES)) if alone else of_tokens
                    if token and route.name in NO_TOKEN_NEEDED:
                        expected = "A 401 A A A A A"
                    found = [self.ask(route, method, role, token) for role in ROLES]
                    with self.subTest(route.name, method=method, token=token):
                        self.assertEqual(" ".join(found), expected)

    def ask(self, route: Route, method: str, role: str, token: bool) -> str:
        # Nobody may set this: allowed, it is refused as a field.
        body = "" if method in ("GET", "DELETE") else json.dumps({"no such field": 1})
        client = self.client_of(role, token=token)
        path = self.api_path(route)
        return self.outcome(client.generic(method, path, body, "application/json"))

    def test_without_its_csrf_token_a_session_writes_nothing(self) -> None:
        client = self.client_of("root", csrf=True)
        for route in routes():
            if route.name in (*TOKENS_ALONE, "api-login"):
                continue  # these know no sessions
            for method in self.expected_api(route):
                if method != "GET":
                    with self.subTest(route.name, method=method):
                        path = self.api_path(route)
                        response = client.generic(method, path, "{}", "application/json")
                        self.assertContains(response, "CSRF", status_code=403)
            if route.path.startswith("admin/") and self.expected_page(route):
                with self.subTest(route.path):
                    response = client.post(self.page_path(route))
                    self.assertIn(response.status_code, (403, 404, 405), route.path)

    def test_with_it_it_does(self) -> None:
        client = self.client_of("root", csrf=True)
        client.get("/admin/password_change/")
        token = client.cookies["csrftoken"].value
        response = client.patch(
            f"/api/users/{self.own.pk}", "{}", "application/json", headers={"X-CSRFToken": token}
        )
        self.assertEqual(response.status_code, 200)

    def test_nobody_is_told_whether_another_user_exists(self) -> None:
        for token in (False, True):
            client = self.client_of("other", token=token)
            asked = ("GET", ""), ("PATCH", ""), ("DELETE", ""), ("GET", "/activities")
            for method, ending in asked:
                answers = {
                    client.generic(method, f"/api/users/{key}{ending}").content
                    for key in (self.own.pk, uuid4())
                }
                self.assertEqual(len(answers), 1)
