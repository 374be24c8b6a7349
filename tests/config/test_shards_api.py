"""/api/shards."""

from typing import ClassVar

from tests.support import server_down
from tests.users.api import ApiTestCase


class ShardsTests(ApiTestCase):
    granted: ClassVar = ("sharding.view_slot",)

    def test_lists_what_each_owns_and_whether_it_is_up(self):
        with server_down("shard_3"):
            found = self.send("GET", "/api/shards", by=self.staff).json()
        self.assertEqual(found["map_version"], 1)
        self.assertEqual(
            found["shards"],
            [
                {"alias": "shard_1", "state": "up", "slots": 334},
                {"alias": "shard_2", "state": "up", "slots": 333},
                {"alias": "shard_3", "state": "down", "slots": 333},
            ],
        )

    def test_for_staff(self):
        self.assertProblem(self.send("GET", "/api/shards", by=self.ada), 403)
