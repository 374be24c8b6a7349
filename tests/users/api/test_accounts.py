"""/api/users."""

from datetime import timedelta
from typing import Any, ClassVar
from uuid import uuid4

from django.db import transaction
from django.db.models import F
from django.test import Client
from django.utils import timezone

from analytics.models import UserAnalytics
from analytics.sync.described import USERS
from sharding import get_shard_for_user_id
from sharding.testing import ShardedTestCase
from tests.support import fenced, server_down
from tests.users.api import ApiTestCase, with_token
from users.models import Profile, User
from users.services import create_user, get_user_from_shard


class ReadTests(ApiTestCase):
    def test_shows_account_and_profile_to_staff_and_to_the_user(self):
        for reader in (self.staff, self.ada):
            with self.subTest(reader):
                response = self.send("GET", f"/api/users/{self.ada.pk}", by=reader)
                record = response.json()
                self.assertEqual(record["id"], str(self.ada.pk))
                self.assertEqual(record["email"], "ada@example.com")
                self.assertEqual(record["profile"]["country"], "GB")
                self.assertEqual(response["X-Data-Source"], "primary")

    def test_is_kept_by_nobody_on_the_way(self):
        for by, status in ((self.ada, 200), (None, 401)):
            response = self.send("GET", f"/api/users/{self.ada.pk}", by=by)
            self.assertEqual(
                (response.status_code, response["Cache-Control"]), (status, "no-store")
            )

    def test_never_shows_the_password(self):
        for path in (f"/api/users/{self.ada.pk}", "/api/users"):
            self.assertNotContains(self.send("GET", path, by=self.staff), "password")

    def test_to_a_stranger_a_user_looks_like_none(self):
        existing = self.send("GET", f"/api/users/{self.ada.pk}", by=self.eve)
        missing = self.send("GET", f"/api/users/{uuid4()}", by=self.eve)
        self.assertProblem(existing, 404)
        self.assertEqual(existing.content, missing.content)

    def test_staff_too_get_404_for_a_user_who_does_not_exist(self):
        self.assertProblem(self.send("GET", f"/api/users/{uuid4()}", by=self.staff), 404)

    def test_refuses_the_anonymous_and_the_inactive(self):
        response = self.send("GET", f"/api/users/{self.ada.pk}", by=None)
        self.assertProblem(response, 401)
        self.assertEqual(response["WWW-Authenticate"], "Bearer")
        client = with_token(self.ada)
        User.objects.filter(pk=self.ada.pk).update(is_active=False)
        self.assertProblem(client.get(f"/api/users/{self.ada.pk}"), 401)

    def test_an_account_that_lost_its_profile_is_shown_without(self):
        shard = get_shard_for_user_id(self.ada.pk)
        Profile.objects.using(shard).filter(pk=self.ada.pk).delete()
        record = self.send("GET", f"/api/users/{self.ada.pk}", by=self.ada).json()
        self.assertIsNone(record["profile"])

    def test_asks_one_shard(self):
        client = with_token(self.ada)
        with ShardedTestCase.assertShards(self, get_shard_for_user_id(self.ada.pk)):  # type: ignore[arg-type]
            client.get(f"/api/users/{self.ada.pk}")


class ListTests(ApiTestCase):
    def pages(self, client: Client, path: str) -> list[list[str]]:
        """Follow `next` to the end."""
        pages: list[list[str]] = []
        while path:
            answer = client.get(path).json()
            pages.append([row["id"] for row in answer["results"]])
            path = answer["next"]
        return pages

    def test_pages_hold_every_account_once_by_id(self):
        pages = self.pages(with_token(self.staff), "/api/users?limit=3")
        self.assertEqual([len(page) for page in pages], [3, 1])
        ids = [str(key) for key in User.objects.order_by("id").values_list("id", flat=True)]
        self.assertEqual([key for page in pages for key in page], ids)

    def test_finds_an_email_in_any_case(self):
        found = self.send("GET", "/api/users?email=ADA@Example.com", by=self.staff).json()
        self.assertEqual([row["id"] for row in found["results"]], [str(self.ada.pk)])

    def test_refuses_what_it_does_not_know(self):
        for query, field in {
            "limit=0": "limit",
            "limit=201": "limit",
            "limit=many": "limit",
            "limit=": "limit",
            "limit=1&limit=2": "limit",
            "email=": "email",
            "email=ada": "email",
            "mail=ada@example.com": "mail",
            "cursor=x": "cursor",
            "cursor=WyJ4Il0=": "cursor",
            "cursor=W10=": "cursor",
            "cursor=eyJhIjogMX0=": "cursor",
        }.items():
            with self.subTest(query):
                response = self.send("GET", f"/api/users?{query}", by=self.staff)
                self.assertProblem(response, 400, **{field: ""})

    def test_users_see_no_list(self):
        self.assertProblem(self.send("GET", "/api/users", by=self.ada), 403)


class CreateTests(ApiTestCase):
    def create(self, by: User | None = None, **body: Any) -> Any:
        return self.send("POST", "/api/users", by=by or self.staff, body=body)

    def test_stores_account_and_profile(self):
        response = self.create(
            email="Grace@Example.com",
            name="Grace",
            password="a long password",
            profile={"country": "US", "plan": "team", "settings": {"theme": "dark"}},
        )
        self.assertEqual(response.status_code, 201, response.content)
        user = User.objects.get(email="grace@example.com")
        self.assertTrue(user.check_password("a long password"))
        profile = get_user_from_shard(user.pk)
        assert profile
        self.assertEqual((profile.plan, profile.settings), ("team", {"theme": "dark"}))
        self.assertEqual(response.json()["profile"]["country"], "US")

    def test_says_which_field_is_wrong_and_stores_nothing(self):
        before = User.objects.count()
        for body, fields in (
            ({}, {"email": "required"}),
            ({"email": "nobody"}, {"email": "valid email"}),
            ({"email": "ada@example.com"}, {"email": "already exists"}),
            ({"email": "ADA@example.com"}, {"email": "already exists"}),
            ({"email": "b@example.com", "password": "12345"}, {"password": ""}),
            (
                {"email": "b@example.com", "name": "Grace Hopper", "password": "gracehopper"},
                {"password": "too similar to the name"},
            ),
            ({"email": "b@example.com", "is_superuser": True}, {"is_superuser": "no field"}),
            ({"email": "b@example.com", "is_staff": True}, {"is_staff": "no field"}),
            (
                {"email": "b@example.com", "profile": {"country": "ch"}},
                {"profile__country": "ISO 3166"},
            ),
            ({"email": "b@example.com", "profile": {"plan": "gold"}}, {"profile__plan": "gold"}),
            ({"email": "b@example.com", "profile": {"settings": []}}, {"profile__settings": ""}),
            ({"email": "b@example.com", "profile": {"x": 1}}, {"profile__x": "no field"}),
        ):
            with self.subTest(body):
                self.assertProblem(self.create(**body), 400, **fields)
        self.assertEqual(User.objects.count(), before)

    def test_needs_the_permission(self):
        bare = create_user(email="bare@example.com", is_staff=True)
        found = self.assertProblem(self.create(bare, email="b@example.com"), 403)
        self.assertIn("users.add_user", found["detail"])


class UpdateTests(ApiTestCase):
    def patch(self, user: User, by: User, **body: Any) -> Any:
        return self.send("PATCH", f"/api/users/{user.pk}", by=by, body=body)

    def test_users_change_their_own(self):
        response = self.patch(
            self.ada, self.ada, name="Countess", profile={"bio": "Engines", "country": "FR"}
        )
        self.assertEqual(response.status_code, 200, response.content)
        self.assertEqual(response.json()["name"], "Countess")
        profile = get_user_from_shard(self.ada.pk)
        assert profile
        self.assertEqual((profile.bio, profile.country, profile.plan), ("Engines", "FR", "pro"))

    def test_what_users_may_not_set_is_refused_by_name(self):
        for body, field in (
            ({"email": "new@example.com"}, "email"),
            ({"is_staff": True}, "is_staff"),
            ({"is_active": True}, "is_active"),
            ({"profile": {"plan": "team"}}, "profile__plan"),
            ({"id": str(uuid4())}, "id"),
        ):
            with self.subTest(field):
                self.assertProblem(self.patch(self.ada, self.ada, **body), 400, **{field: ""})

    def test_a_new_password_needs_the_present_one_and_ends_all_tokens(self):
        before = with_token(self.ada)
        for given in ({}, {"current_password": "wrong"}):
            response = self.patch(self.ada, self.ada, password="battery staple", **given)
            self.assertProblem(response, 400, current_password="present password")
        self.assertEqual(before.get(f"/api/users/{self.ada.pk}").status_code, 200)
        response = self.patch(
            self.ada, self.ada, password="battery staple", current_password="correct horse"
        )
        self.assertEqual(response.status_code, 200, response.content)
        self.ada.refresh_from_db()
        self.assertTrue(self.ada.check_password("battery staple"))
        self.assertProblem(before.get(f"/api/users/{self.ada.pk}"), 401)

    def test_staff_change_email_plan_and_whether_one_may_log_in(self):
        response = self.patch(
            self.ada,
            self.staff,
            email="Lovelace@example.com",
            is_active=False,
            profile={"plan": "team"},
        )
        record = response.json()
        self.assertEqual((record["email"], record["is_active"]), ("lovelace@example.com", False))
        self.assertEqual(record["profile"]["plan"], "team")

    def test_staff_cannot_rise(self):
        self.assertProblem(self.patch(self.ada, self.staff, is_staff=True), 400, is_staff="")
        for other in (self.root, create_user(email="other@example.com", is_staff=True)):
            for body in ({"password": "taken over"}, {"email": "mine@example.com"}):
                self.assertProblem(self.patch(other, self.staff, **body), 403)
            self.assertProblem(self.send("DELETE", f"/api/users/{other.pk}", by=self.staff), 403)

    def test_superusers_make_staff(self):
        self.assertTrue(self.patch(self.ada, self.root, is_staff=True).json()["is_staff"])

    def test_a_stranger_changes_nothing(self):
        self.assertProblem(self.patch(self.ada, self.eve, name="Eve's"), 404)
        self.ada.refresh_from_db()
        self.assertEqual(self.ada.name, "Ada")


class DeleteTests(ApiTestCase):
    def test_deletes_account_and_profile(self):
        for user, by in ((self.ada, self.ada), (self.eve, self.staff)):
            path = f"/api/users/{user.pk}"
            key = user.pk
            self.assertEqual(self.send("DELETE", path, by=by).status_code, 204)
            self.assertIsNone(get_user_from_shard(key))
            self.assertProblem(self.send("GET", path, by=self.staff), 404)

    def test_a_stranger_deletes_nothing(self):
        self.assertProblem(self.send("DELETE", f"/api/users/{self.ada.pk}", by=self.eve), 404)
        self.assertTrue(User.objects.filter(pk=self.ada.pk).exists())


class OutageTests(ApiTestCase):
    granted: ClassVar = (*ApiTestCase.granted, "users.view_profile")

    def setUp(self) -> None:
        super().setUp()
        rows = User.objects.values(*USERS.columns, user_id=F("id"))
        UserAnalytics.objects.bulk_create(UserAnalytics(**row) for row in rows)

    def test_a_shard_that_is_down_is_named(self):
        shard = get_shard_for_user_id(self.ada.pk)
        client = with_token(self.ada)
        for method, body in (("GET", ""), ("PATCH", '{"profile": {"bio": ""}}'), ("DELETE", "")):
            with self.subTest(method), server_down(shard), self.assertLogs() as logs:
                response = client.generic(
                    method, f"/api/users/{self.ada.pk}", body, "application/json"
                )
                found = self.assertProblem(response, 503)
                self.assertEqual((found["database"], response["Retry-After"]), (shard, "5"))
                self.assertNotContains(response, "nowhere", status_code=503)
                self.assertIn("nowhere", logs.output[0])
        self.assertTrue(User.objects.filter(pk=self.ada.pk).exists())

    def test_a_user_who_is_just_moving_is_read_and_not_changed(self):
        client = with_token(self.ada)
        path = f"/api/users/{self.ada.pk}"
        with fenced(self.ada.pk), self.assertLogs("config.problems"):
            self.assertEqual(client.get(path).status_code, 200)
            for method, ending, body in (
                ("PATCH", "", '{"profile": {"bio": "x"}}'),
                ("POST", "/activities", '{"kind": "login"}'),
            ):
                shard = get_shard_for_user_id(self.ada.pk)
                with transaction.atomic(using=shard):
                    response = client.generic(method, path + ending, body, "application/json")
                    transaction.set_rollback(True, using=shard)
                self.assertProblem(response, 503)
                self.assertEqual(response["Retry-After"], "5")
        self.assertEqual(client.get(path).json()["profile"]["bio"], "")

    def test_while_the_primary_is_down_reads_go_on_from_copies(self):
        client, staff = with_token(self.ada), with_token(self.staff)
        path = f"/api/users/{self.ada.pk}"
        UserAnalytics.objects.update(synced_at=timezone.now() - timedelta(hours=2))
        before, listed = client.get(path), staff.get("/api/users")
        with server_down("default"), self.assertLogs("users.primary", "WARNING") as logs:
            during, listed_during = client.get(path), staff.get("/api/users")
        self.assertEqual(during.json(), before.json())
        self.assertEqual(listed_during.json(), listed.json())
        for response in (during, listed_during):
            self.assertEqual(response["X-Data-Source"], "analytics")
            self.assertIn(int(response["X-Data-Age"]), range(7200, 7260))
            self.assertIn("X-Data-As-Of", response)
        self.assertEqual(len(logs.output), 1)
        self.assertEqual(client.get(path)["X-Data-Source"], "primary")

    def test_a_copy_that_is_not_there_is_no_user_who_is_not_there(self):
        client = with_token(self.ada)
        path = f"/api/users/{self.ada.pk}"
        client.get(path)
        UserAnalytics.objects.filter(pk=self.ada.pk).delete()
        with server_down("default"), self.assertLogs():
            self.assertProblem(client.get(path), 503)

    def test_sessions_are_known_too(self):
        self.client.force_login(self.ada)
        path = f"/api/users/{self.ada.pk}"
        self.client.get(path)
        with server_down("default"), self.assertLogs():
            self.assertEqual(self.client.get(path)["X-Data-Source"], "analytics")

    def test_whom_nobody_has_seen_is_refused_and_so_are_writes(self):
        seen, unseen = with_token(self.ada), with_token(self.ada)
        path = f"/api/users/{self.ada.pk}"
        seen.get(path)
        with server_down("default"), self.assertLogs():
            self.assertEqual(self.assertProblem(unseen.get(path), 503)["database"], "primary")
            response = seen.patch(path, '{"name": "x"}', "application/json")
            self.assertEqual(self.assertProblem(response, 503)["database"], "primary")

    def test_who_logged_out_is_not_known(self):
        client = with_token(self.ada)
        client.get(f"/api/users/{self.ada.pk}")
        self.assertEqual(client.post("/api/logout").status_code, 204)
        with server_down("default"), self.assertLogs():
            self.assertProblem(client.get(f"/api/users/{self.ada.pk}"), 503)

    def test_a_header_that_identifies_nobody_stands_for_nobody(self):
        self.client.force_login(self.ada)
        path = f"/api/users/{self.ada.pk}"
        self.client.get(path, headers={"Authorization": "Basic x"})
        other = Client(headers={"Authorization": "Basic x"})
        with server_down("default"):
            self.assertProblem(other.get(path), 401)

    def test_both_down(self):
        client = with_token(self.ada)
        path = f"/api/users/{self.ada.pk}"
        client.get(path)
        with server_down("default"), server_down("analytics"), self.assertLogs():
            found = self.assertProblem(client.get(path), 503)
        self.assertEqual(found["database"], "analytics")
