"""/api/profiles: pages over all shards."""

from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar
from uuid import UUID, uuid4

from hypothesis import given, settings
from hypothesis import strategies as st

from sharding.testing import ShardedTestCase
from tests.support import server_down
from tests.users.api import ApiTestCase, with_token
from users.models import Profile

START = datetime(2026, 1, 1, tzinfo=UTC)


class ProfilesTests(ApiTestCase):
    granted: ClassVar = ("users.view_profile",)

    def setUp(self) -> None:
        super().setUp()
        # In plain sight for the property below: only these.
        Profile.objects.across_shards().delete()
        self.client = with_token(self.staff)

    def add(self, seconds: int, **values: Any) -> UUID:
        profile = Profile(user_id=uuid4(), created_at=START + timedelta(seconds=seconds), **values)
        profile.save()
        return profile.pk

    def read(self, path: str, between: Any = lambda: None) -> list[str]:
        found: list[str] = []
        while path:
            answer = self.client.get(path).json()
            found += [row["user_id"] for row in answer["results"]]
            path = answer["next"]
            between()
        return found

    def test_pages_of_any_size_hold_every_profile_once_in_order(self):
        # Many at the same moment: the id decides then.
        for number in range(20):
            self.add(number // 7)
        every = Profile.objects.across_shards()
        for ordering in ("created_at", "-created_at"):
            sign = "-" if ordering.startswith("-") else ""
            expected = [str(profile.pk) for profile in every.order_by(ordering, f"{sign}user_id")]
            for limit in (1, 3, 7, 19, 20, 21):
                path = f"/api/profiles?ordering={ordering}&limit={limit}"
                self.assertEqual(self.read(path), expected, (ordering, limit))

    def test_writes_between_pages_make_no_other_row_skipped_or_repeated(self):
        steps = st.lists(st.sampled_from(["add", "delete"]), min_size=1, max_size=6)

        @settings(max_examples=15, deadline=None)
        @given(steps, st.integers(2, 6))
        def check(steps: list[str], limit: int) -> None:
            self.check_pages(steps, limit)

        check()

    def check_pages(self, steps: list[str], limit: int) -> None:
        Profile.objects.across_shards().delete()
        steady = [str(self.add(10 * number)) for number in range(10)]
        passing = [self.add(10 * number + 5) for number in range(10)]
        pending = list(steps)

        def write() -> None:
            if pending and pending.pop() == "add":
                self.add(35)
            elif passing:
                Profile.objects.filter(pk=passing.pop(len(passing) // 2)).delete()

        found = self.read(f"/api/profiles?ordering=created_at&limit={limit}", write)
        self.assertEqual([key for key in found if key in steady], steady)
        self.assertEqual(len(found), len({*found}))

    def test_filters(self):
        swiss = self.add(1, country="CH", plan="pro")
        self.add(2, country="CH", plan="free")
        self.add(3, country="US", plan="pro")
        self.assertEqual(self.read("/api/profiles?country=CH&plan=pro&limit=1"), [str(swiss)])

    def test_one_fan_out_a_page(self):
        self.add(1)
        with ShardedTestCase.assertFanout(self, 1):  # type: ignore[arg-type]
            self.client.get("/api/profiles")

    def test_refuses_what_it_does_not_know(self):
        self.add(1)
        self.add(2)
        other = self.client.get("/api/profiles?limit=1&ordering=created_at").json()["next"]
        cursor = other.partition("cursor=")[2].partition("&")[0]
        for query, field in {
            "ordering=bio": "ordering",
            "country=Switzerland": "country",
            "plan=gold": "plan",
            "plan=": "plan",
            "cursor=x": "cursor",
            f"cursor={cursor}": "cursor",
            "page=2": "page",
        }.items():
            with self.subTest(query):
                self.assertProblem(self.client.get(f"/api/profiles?{query}"), 400, **{field: ""})

    def test_a_shard_that_is_down_is_named_not_left_out(self):
        self.add(1)
        with server_down("shard_2"), self.assertLogs():
            found = self.assertProblem(self.client.get("/api/profiles"), 503)
        self.assertEqual(found["database"], "shard_2")
