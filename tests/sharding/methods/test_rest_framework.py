"""DRF's views on sharded models: the owning shards only."""

import json
from typing import Any

from django.http import HttpResponse
from rest_framework.pagination import PageNumberPagination
from rest_framework.serializers import ModelSerializer
from rest_framework.test import APIRequestFactory
from rest_framework.viewsets import ModelViewSet

from tests.sharding.methods.world import (
    ADA,
    BOB,
    FREE_ID,
    SHARDS,
    WorldTestCase,
    activity_id,
    plain,
)
from users.models import Activity, Profile


class ProfileSerializer(ModelSerializer[Profile]):
    class Meta:
        model = Profile
        fields = ["user_id", "display_name", "plan"]


class ActivitySerializer(ModelSerializer[Activity]):
    class Meta:
        model = Activity
        fields = ["id", "profile", "kind", "amount"]
        read_only_fields = ["id"]


class Pages(PageNumberPagination):
    page_size = 4


class ProfileViewSet(ModelViewSet):
    permission_classes: list[Any] = []
    queryset = Profile.objects.across_shards().order_by("created_at")
    serializer_class = ProfileSerializer
    pagination_class = Pages


class ActivityViewSet(ModelViewSet):
    permission_classes: list[Any] = []
    serializer_class = ActivitySerializer

    def get_queryset(self) -> Any:
        return Activity.objects.filter(profile=self.kwargs["user_id"]).order_by("occurred_at")


class ModelViewSetTests(WorldTestCase):
    def call(self, view: Any, method: str, data: Any = None, **kwargs: Any) -> HttpResponse:
        actions = {"get": "retrieve", "put": "update", "patch": "partial_update"}
        actions |= {"delete": "destroy", "post": "create"}
        if "pk" not in kwargs:
            actions["get"] = "list"
        request = getattr(APIRequestFactory(), method)("/", data, format="json")
        return view.as_view({method: actions[method]})(request, **kwargs)

    def body(self, response: HttpResponse) -> Any:
        return json.loads(response.render().content)  # type: ignore[attr-defined]

    def test_list(self) -> None:
        with self.assert_touches(*SHARDS, times=2):
            body = self.body(self.call(ProfileViewSet, "get"))
        self.assertEqual(body["count"], 6)
        names = [each["display_name"] for each in body["results"]]
        self.assertEqual(names, ["Dee", "Fay", "Bob", "Cy"])

    def test_retrieve(self) -> None:
        with self.assert_touches("shard_2", times=1):
            self.assertEqual(self.body(self.call(ProfileViewSet, "get", pk=BOB))["plan"], "free")
        with self.assert_touches("shard_2", times=1):
            self.assertEqual(self.call(ProfileViewSet, "get", pk=FREE_ID).status_code, 404)

    def test_create(self) -> None:
        data = {"user_id": str(FREE_ID), "display_name": "New"}
        with self.assert_touches("shard_2"):
            self.assertEqual(self.call(ProfileViewSet, "post", data).status_code, 201)
        with self.assert_touches("shard_2"):
            response = self.call(ProfileViewSet, "post", data)
        self.assertEqual(response.status_code, 400)
        (error,) = self.body(response)["errors"]
        self.assertEqual(error["field"], "user_id")
        self.assertIn("already exists", error["detail"])

    def test_update(self) -> None:
        data = {"user_id": str(BOB), "display_name": "Robert", "plan": "pro"}
        with self.assert_touches("shard_2"):
            self.assertEqual(self.call(ProfileViewSet, "put", data, pk=BOB).status_code, 200)
        with self.assert_touches("shard_2"):
            self.call(ProfileViewSet, "patch", {"plan": "team"}, pk=BOB)
        stored = plain(Profile, "shard_2").get(pk=BOB)
        self.assertEqual((stored.display_name, stored.plan), ("Robert", "team"))

    def test_destroy(self) -> None:
        with self.assert_touches("shard_2"):
            self.assertEqual(self.call(ProfileViewSet, "delete", pk=BOB).status_code, 204)
        self.assertFalse(plain(Profile, "shard_2").filter(pk=BOB).exists())

    def test_of_one_users_activities(self) -> None:
        one = {"user_id": BOB, "pk": activity_id(BOB, 0)}
        with self.assert_touches("shard_2"):
            self.assertEqual(len(self.body(self.call(ActivityViewSet, "get", user_id=BOB))), 2)
            self.assertEqual(self.body(self.call(ActivityViewSet, "get", **one))["kind"], "login")
            self.call(ActivityViewSet, "patch", {"kind": "changed"}, **one)
            data = {"profile": str(BOB), "kind": "new"}
            self.assertEqual(self.call(ActivityViewSet, "post", data, user_id=BOB).status_code, 201)
        with self.assert_touches("shard_1"):  # another user's is not there
            wrong = {"user_id": ADA, "pk": activity_id(BOB, 0)}
            self.assertEqual(self.call(ActivityViewSet, "get", **wrong).status_code, 404)
