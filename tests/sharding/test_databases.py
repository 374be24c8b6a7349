"""The databases by their role, and the end of their connections."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from threading import Event

from django.db import connections, transaction
from django.test import SimpleTestCase, override_settings

from sharding.databases import DatabaseManager
from sharding.errors import InvalidShardKey
from tests.outage import pointed_to
from tests.sharding.ids import ids_on_each_shard
from tests.support import ServerLog, server_down, wait_until

NAME = f"test-databases-{os.getpid()}"


class RolesTests(SimpleTestCase):
    databases = "__all__"

    def test_by_role(self) -> None:
        manager = DatabaseManager()
        self.assertIs(manager.get_primary(), connections["default"])
        self.assertIs(manager.get_analytics(), connections["analytics"])
        for alias, user_id in ids_on_each_shard().items():
            self.assertIs(manager.get_shard(user_id), connections[alias])
            self.assertIs(manager.get_shard(str(user_id)), connections[alias])

    def test_they_are_connections(self) -> None:
        for connection in (DatabaseManager().get_primary(), DatabaseManager().get_analytics()):
            with connection.cursor() as cursor:
                cursor.execute("SELECT to_regclass('users_user') IS NOT NULL")
                self.assertEqual(cursor.fetchone(), (connection.alias == "default",))

    @override_settings(DATABASE_APPS={"analytics": "shard_1"})
    def test_analytics_is_where_its_app_is(self) -> None:
        self.assertEqual(DatabaseManager().get_analytics().alias, "shard_1")

    def test_a_key_that_is_no_uuid(self) -> None:
        with self.assertRaises(InvalidShardKey):
            DatabaseManager().get_shard("nobody")


class ConnectedTestCase(SimpleTestCase):
    """All connections are made under one name, which the servers are asked for."""

    databases = "__all__"

    def setUp(self) -> None:
        named = {
            alias: {
                "OPTIONS": connections[alias].settings_dict["OPTIONS"] | {"application_name": NAME}
            }
            for alias in connections
        }
        self.servers = {alias: ServerLog(alias) for alias in connections}
        for server in self.servers.values():
            self.addCleanup(server.close)
        self.enterContext(pointed_to(named))

    def connect(self, *aliases: str) -> None:
        """Fill the pools of these databases."""
        for alias in aliases or connections:
            with connections[alias].cursor() as cursor:
                cursor.execute("SELECT 1")
            smallest = connections[alias].settings_dict["OPTIONS"]["pool"]["min_size"]
            wait_until(partial(self.is_open, alias, smallest), "the pool")

    def is_open(self, alias: str, count: int) -> bool:
        return self.servers[alias].connected(NAME) >= count

    def is_closed(self, alias: str) -> bool:
        return not self.is_open(alias, 1)

    def assertNoneOpen(self, *aliases: str) -> None:
        for alias in aliases or connections:
            wait_until(partial(self.is_closed, alias), f"no connection to {alias}")


class DisconnectTests(ConnectedTestCase):
    def test_leaves_no_connection_on_any_server(self) -> None:
        self.connect()
        DatabaseManager().disconnect()
        self.assertNoneOpen()

    def test_again_and_without_any(self) -> None:
        self.connect()
        for _ in range(3):
            DatabaseManager().disconnect()
        self.assertNoneOpen()

    def test_afterwards_everything_works_as_before(self) -> None:
        DatabaseManager().disconnect()
        self.connect()
        DatabaseManager().disconnect()
        self.assertNoneOpen()

    def test_opens_nothing_itself(self) -> None:
        self.connect("shard_1")
        DatabaseManager().disconnect()
        self.assertNoneOpen()
        self.assertIsNone(connections["analytics"].connection)

    def test_in_the_middle_of_transactions(self) -> None:
        with ExitStack() as stack:
            for alias in connections:
                stack.enter_context(transaction.atomic(using=alias))
                connections[alias].ensure_connection()
            DatabaseManager().disconnect()
            self.assertNoneOpen()

    def test_connections_that_are_lost_already(self) -> None:
        with ExitStack() as stack:
            for alias in ("default", "shard_2"):
                stack.enter_context(transaction.atomic(using=alias))
                with connections[alias].cursor() as cursor:
                    cursor.execute("SELECT pg_backend_pid()")
                    process = cursor.fetchone()
                self.servers[alias].connection.execute("SELECT pg_terminate_backend(%s)", process)
            self.connect("shard_3")
            DatabaseManager().disconnect()
            self.assertNoneOpen()

    def test_a_server_that_is_down(self) -> None:
        self.connect("default", "shard_2")
        with server_down("shard_1"):
            DatabaseManager().disconnect()
        self.assertNoneOpen()

    def test_what_another_thread_uses_ends_when_it_is_given_back(self) -> None:
        connected, disconnected = Event(), Event()

        def request() -> None:
            with connections["shard_1"].cursor() as cursor:
                connected.set()
                disconnected.wait(timeout=30)
                cursor.execute("SELECT 1")
            connections["shard_1"].close()

        with ThreadPoolExecutor(1) as other:
            running = other.submit(request)
            connected.wait(timeout=30)
            DatabaseManager().disconnect()
            disconnected.set()
            running.result()
        self.assertNoneOpen()


class ForkTests(ConnectedTestCase):
    """A child that was forked has connections of its own, and leaves its parent's alone."""

    def processes(self) -> dict[str, int]:
        """The server's process behind each of our connections."""
        found = {}
        for alias in connections:
            with connections[alias].cursor() as cursor:
                cursor.execute("SELECT pg_backend_pid()")
                found[alias] = cursor.fetchone()[0]
        return found

    def forked(self) -> dict[str, int]:
        """The processes that a forked child finds behind its connections."""
        reading, writing = os.pipe()
        if child := os.fork():
            os.close(writing)
            with open(reading) as answers:
                found: dict[str, int] = json.loads(answers.read())
            self.assertEqual(os.waitpid(child, 0), (child, 0))
            return found
        try:
            with open(writing, "w") as answers:
                json.dump(self.processes(), answers)
            DatabaseManager().disconnect()
            os._exit(0)
        finally:
            os._exit(1)  # whatever happens: the tests go on in the parent alone

    def test_forked_with_open_connections_and_pools(self) -> None:
        self.connect()
        before = self.processes()
        seen = [self.forked() for _ in range(3)]
        self.assertEqual(self.processes(), before)
        for alias in connections:
            used = [before[alias], *(processes[alias] for processes in seen)]
            self.assertEqual(len({*used}), len(used), alias)
