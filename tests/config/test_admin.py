"""The admin site: how one logs in to it."""

from typing import Any
from unittest import mock

from django.core.cache import cache
from django.db import transaction
from django.test import TestCase
from django.urls import reverse
from rest_framework.throttling import SimpleRateThrottle

from users.models import User

LOGIN = reverse("admin:login")
PASSWORD = "a-long-and-rare-one"


class LoginTests(TestCase):
    databases = "__all__"

    @classmethod
    def setUpTestData(cls) -> None:
        User.objects.create_superuser("admin@example.com", PASSWORD)

    def setUp(self) -> None:
        cache.clear()

    def log_in(self, password: str = PASSWORD) -> Any:
        return self.client.post(LOGIN, {"username": "admin@example.com", "password": password})

    def test_leads_to_the_dashboard(self) -> None:
        self.assertRedirects(self.log_in(), reverse("admin:index"))

    def test_leads_to_no_other_host(self) -> None:
        form = {"username": "admin@example.com", "password": PASSWORD}
        for elsewhere in ("https://evil.example.com/", "//evil.example.com", "javascript:alert(1)"):
            response = self.client.post(f"{LOGIN}?next={elsewhere}", form | {"next": elsewhere})
            self.assertRedirects(response, reverse("admin:index"))
            self.client.logout()

    def test_guessing_is_slowed_down_here_and_in_the_api_together(self) -> None:
        self.enterContext(self.assertLogs("django.request"))
        body = {"email": "admin@example.com", "password": "wrong"}
        with mock.patch.dict(SimpleRateThrottle.THROTTLE_RATES, login="2/minute"):
            self.assertEqual(self.log_in("wrong").status_code, 200)
            answer = self.client.post("/api/login", body, "application/json")
            self.assertEqual(answer.status_code, 401)
            response = self.log_in()
        self.assertContains(response, "Too many attempts", status_code=429)
        self.assertIn(int(response["Retry-After"]), range(1, 61))
        self.assertEqual(self.client.get(LOGIN).status_code, 200)


class InputTests(TestCase):
    databases = "__all__"

    def test_what_no_database_could_look_for(self) -> None:
        self.client.force_login(User.objects.create_superuser("admin@example.com"))
        self.enterContext(self.assertLogs("django.request"))
        self.enterContext(self.assertLogs("config.problems"))
        field = "app_label=users&model_name=activity&field_name=profile"
        for path in (
            *("users/profile/?country=%00", "analytics/profileanalytics/?shard=%00"),
            *(f"autocomplete/?{field}&term=%00@", "knox/authtoken/%00/change/"),
        ):
            with self.subTest(path), transaction.atomic():
                self.assertEqual(self.client.get(f"/admin/{path}").status_code, 400)
