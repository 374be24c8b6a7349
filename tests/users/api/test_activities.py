"""/api/users/<id>/activities."""

from typing import Any
from uuid import uuid4

from sharding import get_shard_for_user_id
from sharding.testing import ShardedTestCase
from tests.users.api import ApiTestCase, allow, with_token
from users.models import Activity, Profile


class ActivitiesTests(ApiTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.path = f"/api/users/{self.ada.pk}/activities"

    def post(self, **body: Any) -> Any:
        return self.send("POST", self.path, by=self.ada, body=body)

    def test_stores_and_lists_the_latest_first(self):
        for number in (1, 3, 2):
            response = self.post(kind=f"k{number}", occurred_at=f"2026-01-0{number}T00:00:00Z")
            self.assertEqual(response.status_code, 201, response.content)
        answer = self.send("GET", f"{self.path}?limit=2", by=self.ada).json()
        self.assertEqual([row["kind"] for row in answer["results"]], ["k3", "k2"])
        rest = with_token(self.ada).get(answer["next"]).json()
        self.assertEqual([row["kind"] for row in rest["results"]], ["k1"])
        self.assertIsNone(rest["next"])

    def test_touches_the_users_shard_alone(self):
        client = with_token(self.ada)
        with ShardedTestCase.assertShards(self, get_shard_for_user_id(self.ada.pk)):  # type: ignore[arg-type]
            client.post(self.path, {"kind": "login"}, "application/json")
            client.get(self.path)

    def test_says_which_field_is_wrong(self):
        for body, fields in (
            ({}, {"kind": "required"}),
            ({"kind": "x" * 41}, {"kind": "40"}),
            ({"kind": "k", "amount": "a lot"}, {"amount": "number"}),
            ({"kind": "k", "amount": "1e99"}, {"amount": ""}),
            ({"kind": "k", "occurred_at": "yesterday"}, {"occurred_at": "format"}),
            ({"kind": "k", "payload": ["x"]}, {"payload": "object"}),
            ({"kind": "k", "payload": {"x": "y" * 17_000}}, {"payload": "characters"}),
            ({"kind": "k", "id": str(uuid4())}, {"id": "no field"}),
            ({"kind": "k", "profile": str(self.eve.pk)}, {"profile": "no field"}),
        ):
            with self.subTest(body):
                self.assertProblem(self.post(**body), 400, **fields)
        self.assertFalse(Activity.objects.filter(profile=self.ada.pk).exists())

    def test_strangers_see_and_store_nothing(self):
        for method in ("GET", "POST"):
            response = self.send(method, self.path, by=self.eve, body={"kind": "k"})
            self.assertProblem(response, 404)

    def test_staff_need_the_permission(self):
        self.assertProblem(self.send("GET", self.path, by=self.staff), 403)
        allow(self.staff, "users.view_activity")
        self.assertEqual(self.send("GET", self.path, by=self.staff).status_code, 200)

    def test_of_nobody(self):
        path = f"/api/users/{uuid4()}/activities"
        for method in ("GET", "POST"):
            response = self.send(method, path, by=self.root, body={"kind": "k"})
            self.assertProblem(response, 404)

    def test_without_a_profile_nothing_is_stored(self):
        Profile.objects.filter(pk=self.ada.pk).delete()
        self.assertProblem(self.post(kind="k"), 404)
