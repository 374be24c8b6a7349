"""sharding.W030: more connections than the servers take."""

from django.db import connections
from django.test import SimpleTestCase

from sharding.server_checks import check_servers
from tests.outage import pointed_to, pool_options

# What the embedded servers take, without the three places that PostgreSQL reserves.
PLACES = 197


class ConnectionsTests(SimpleTestCase):
    databases = "__all__"

    def test_as_many_as_there_are(self) -> None:
        with self.settings(DATABASE_PROCESSES=PLACES // 5):
            self.assertEqual(check_servers([*connections]), [])

    def test_more(self) -> None:
        with self.settings(DATABASE_PROCESSES=40), pool_options("shard_1", max_size=4):
            found = check_servers([*connections])
        self.assertEqual([message.id for message in found], ["sharding.W030"] * 4)
        self.assertEqual(
            found[0].msg,
            "40 processes may open 200 connections to the server of primary, which takes 197.",
        )
        self.assertFalse(found[0].is_serious())

    def test_two_databases_on_one_server(self) -> None:
        server = {k: connections["shard_1"].settings_dict[k] for k in ("HOST", "PORT")}
        own = self.settings(DATABASE_PROCESSES=20, SHARDING_CHECK_IDENTITY=False)
        with own, pointed_to({"shard_2": server}):
            (found,) = check_servers([*connections])
        self.assertIn("200 connections to the server of shard_1, shard_2,", found.msg)

    def test_a_server_that_is_down_is_left_out(self) -> None:
        with self.settings(DATABASE_PROCESSES=40), pointed_to({"shard_1": {"HOST": "/nowhere"}}):
            found = check_servers([*connections])
        self.assertEqual(len(found), 4)

    def test_asks_nothing_unless_told_to(self) -> None:
        self.assertEqual(check_servers(None), [])
