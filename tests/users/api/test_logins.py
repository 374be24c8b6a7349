"""/api/login and /api/logout."""

from datetime import timedelta
from typing import Any
from unittest import mock

from django.test import Client
from django.utils import timezone
from knox.models import AuthToken
from rest_framework.throttling import SimpleRateThrottle

from tests.users.api import ApiTestCase, with_token
from users.models import User

CREDENTIALS = {"email": "Ada@Example.com", "password": "correct horse"}


class LoginTests(ApiTestCase):
    def login(self, **body: Any) -> Any:
        return self.send("POST", "/api/login", by=None, body=CREDENTIALS | body)

    def status_with(self, token: str) -> int:
        client = Client(headers={"Authorization": f"Bearer {token}"})
        return client.get(f"/api/users/{self.ada.pk}").status_code

    def test_the_token_works_expires_and_is_stored_as_a_hash(self):
        response = self.login()
        self.assertEqual(response.status_code, 200, response.content)
        token = response.json()["token"]
        self.assertEqual(self.status_with(token), 200)
        stored = AuthToken.objects.get(user=self.ada)
        self.assertNotIn(token, stored.digest)
        AuthToken.objects.update(expiry=timezone.now() - timedelta(seconds=1))
        self.assertEqual(self.status_with(token), 401)

    def test_counts_as_a_login(self):
        self.login()
        self.ada.refresh_from_db()
        self.assertIsNotNone(self.ada.last_login)

    def test_wrong_credentials_look_alike_whatever_is_wrong(self):
        answers = {
            self.login(**wrong).content
            for wrong in ({"password": "wrong"}, {"email": "nobody@example.com"})
        }
        User.objects.filter(pk=self.ada.pk).update(is_active=False)
        inactive = self.login()
        self.assertProblem(inactive, 401)
        self.assertEqual(answers, {inactive.content})

    def test_bad_input(self):
        for body, fields in (
            ({"email": "x"}, {"email": ""}),
            ({"password": ""}, {"password": ""}),
            ({"username": "x"}, {"username": ""}),
        ):
            self.assertProblem(self.login(**body), 400, **fields)

    def test_tokens_that_are_none(self):
        for token in ("x", "é", "0" * 64, "0" * 65, "a b", ""):
            with self.subTest(token):
                self.assertEqual(self.status_with(token), 401)

    def test_no_more_tokens_than_allowed(self):
        with mock.patch("users.api.logins.knox_settings") as limits:
            limits.TOKEN_LIMIT_PER_USER = 2
            first, second, third = (self.login().json()["token"] for _ in range(3))
        self.assertEqual(
            [self.status_with(token) for token in (first, second, third)], [401, 200, 200]
        )

    def test_guessing_is_slowed_down(self):
        with mock.patch.dict(SimpleRateThrottle.THROTTLE_RATES, login="2/minute"):
            codes = [self.login(password="wrong").status_code for _ in range(2)]
            response = self.login()
        self.assertEqual(codes, [401, 401])
        self.assertProblem(response, 429)
        self.assertIn("Retry-After", response)

    def test_a_client_cannot_choose_the_address_it_is_counted_under(self):
        with mock.patch.dict(SimpleRateThrottle.THROTTLE_RATES, login="1/minute"):
            codes = [
                Client(headers={"X-Forwarded-For": address})
                .post("/api/login", CREDENTIALS, "application/json")
                .status_code
                for address in ("10.0.0.1", "10.0.0.2")
            ]
        self.assertEqual(codes, [200, 429])


class LogoutTests(ApiTestCase):
    def test_ends_this_token_or_all(self):
        one, other, eve = with_token(self.ada), with_token(self.ada), with_token(self.eve)
        path = f"/api/users/{self.ada.pk}"
        self.assertEqual(one.post("/api/logout").status_code, 204)
        self.assertEqual((one.get(path).status_code, other.get(path).status_code), (401, 200))
        third = with_token(self.ada)
        self.assertEqual(other.post("/api/logout/all").status_code, 204)
        self.assertEqual((other.get(path).status_code, third.get(path).status_code), (401, 401))
        self.assertEqual(eve.get(f"/api/users/{self.eve.pk}").status_code, 200)

    def test_needs_a_token(self):
        self.client.force_login(self.ada)
        self.assertProblem(self.client.post("/api/logout"), 401)


class ThrottleTests(ApiTestCase):
    def test_each_user_has_an_allowance(self):
        with mock.patch.dict(SimpleRateThrottle.THROTTLE_RATES, user="2/minute"):
            ada, eve = with_token(self.ada), with_token(self.eve)
            codes = [ada.get(f"/api/users/{self.ada.pk}").status_code for _ in range(3)]
            self.assertEqual(codes, [200, 200, 429])
            self.assertEqual(eve.get(f"/api/users/{self.eve.pk}").status_code, 200)

    def test_guessing_the_present_password_is_a_login(self):
        def patch(by: User, **body: str) -> int:
            return self.send("PATCH", f"/api/users/{self.ada.pk}", by=by, body=body).status_code

        wrong = {"password": "battery staple", "current_password": "wrong"}
        with mock.patch.dict(SimpleRateThrottle.THROTTLE_RATES, login="1/minute"):
            self.assertEqual([patch(self.ada, **wrong) for _ in range(2)], [400, 429])
            self.assertEqual(patch(self.ada, name="Countess"), 200)
            self.assertEqual(patch(self.staff, password="battery staple"), 200)
