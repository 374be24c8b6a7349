"""/api/users/<id>."""

from uuid import uuid4

from django.test import TestCase

from sharding import get_shard_for_user_id
from tests.support import server_down
from users.models import Profile, User
from users.services import create_user


class UserApiTests(TestCase):
    databases = "__all__"
    ada: User
    staff: User
    stranger: User

    @classmethod
    def setUpTestData(cls):
        cls.ada = create_user(
            email="ada@example.com", name="Ada", profile={"country": "GB", "plan": "pro"}
        )
        cls.staff = User.objects.create_user("staff@example.com", is_staff=True)
        cls.stranger = User.objects.create_user("stranger@example.com")

    def get(self, user_id: object, *, by: User | None):
        if by:
            self.client.force_login(by)
        return self.client.get(f"/api/users/{user_id}")

    def test_shows_account_and_profile_to_staff_and_to_the_user(self):
        for reader in (self.staff, self.ada):
            with self.subTest(reader):
                record = self.get(self.ada.pk, by=reader).json()
                self.assertEqual(record["id"], str(self.ada.pk))
                self.assertEqual(record["email"], "ada@example.com")
                self.assertEqual(record["profile"]["country"], "GB")

    def test_never_shows_the_password(self):
        self.assertNotContains(self.get(self.ada.pk, by=self.staff), "password")

    def test_to_a_stranger_a_user_looks_like_none(self):
        self.enterContext(self.assertLogs("django.request"))
        existing = self.get(self.ada.pk, by=self.stranger)
        missing = self.get(uuid4(), by=self.stranger)
        self.assertEqual(existing.status_code, 404)
        self.assertEqual((existing.status_code, existing.content), (404, missing.content))

    def test_staff_too_get_404_for_a_user_who_does_not_exist(self):
        self.enterContext(self.assertLogs("django.request"))
        self.assertEqual(self.get(uuid4(), by=self.staff).status_code, 404)

    def test_refuses_the_anonymous_and_the_inactive(self):
        self.enterContext(self.assertLogs("django.request"))
        self.assertEqual(self.get(self.ada.pk, by=None).status_code, 403)
        self.client.force_login(self.ada)
        User.objects.filter(pk=self.ada.pk).update(is_active=False)
        self.assertEqual(self.get(self.ada.pk, by=None).status_code, 403)

    def test_only_reads(self):
        self.enterContext(self.assertLogs("django.request"))
        self.client.force_login(self.staff)
        for method in ("post", "put", "patch", "delete"):
            response = getattr(self.client, method)(f"/api/users/{self.ada.pk}")
            self.assertEqual(response.status_code, 405)

    def test_an_account_that_lost_its_profile_is_shown_without(self):
        shard = get_shard_for_user_id(self.ada.pk)
        Profile.objects.using(shard).filter(pk=self.ada.pk).delete()
        self.assertIsNone(self.get(self.ada.pk, by=self.ada).json()["profile"])

    def test_answers_503_with_the_name_of_the_database_that_is_down(self):
        shard = get_shard_for_user_id(self.ada.pk)
        for alias, name in ((shard, shard), ("default", "primary")):
            self.client.force_login(self.ada)
            with self.subTest(name), server_down(alias), self.assertLogs() as logs:
                response = self.get(self.ada.pk, by=None)
                self.assertEqual(response.status_code, 503)
                self.assertEqual(response["Retry-After"], "5")
                self.assertEqual(response.json()["database"], name)
                self.assertNotContains(response, "nowhere", status_code=503)
                self.assertIn("nowhere", logs.output[0])
