"""Every refusal before a move, with what to do; and that nothing was touched."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import psycopg
from django.core.management import CommandError, call_command
from django.db import connections

from sharding import slot_cache
from sharding.errors import MoveRefused
from sharding.models import Move
from sharding.moves import prechecks, run, servers
from sharding.moves.record import ENDED
from tests.outage import pointed_to
from tests.sharding.moves.support import OWN, SLOTS, MovesTestCase, quiet, user_id
from tests.support import server_down


class PrechecksTests(MovesTestCase):
    def fill(self) -> None:
        self.keys = []

    def execute(self, alias: str, statement: str) -> None:
        with psycopg.connect(self.servers.url(alias), autocommit=True) as client:
            client.execute(statement)

    @contextmanager
    def setting(self, alias: str, name: str, value: str) -> Iterator[None]:
        """Let a server say that a setting of it has this value."""
        original = prechecks.value

        def said(asked: str, query: Any, parameters: Any = ()) -> Any:
            if (asked, query) == (alias, f"SHOW {name}"):
                return value
            return original(asked, query, parameters)

        with mock.patch.object(prechecks, "value", said):
            yield

    def assertRefused(self, *texts: str, **request: Any) -> None:
        given = {"source": "shard_1", "target": "shard_2", "slots": SLOTS} | request
        version = slot_cache.renew().version
        with self.assertRaises(MoveRefused) as caught:
            run.begin(**given)
        for text in texts:
            self.assertIn(text, str(caught.exception))
        self.assertEqual(slot_cache.renew().version, version)
        self.assertFalse(Move.objects.exclude(state__in=ENDED).exists())
        for alias in OWN[1:]:
            with psycopg.connect(self.servers.url(alias)) as client:
                query = "SELECT subname FROM pg_subscription"
                self.assertEqual(client.execute(query).fetchall(), [])

    def test_requests_that_make_no_sense(self) -> None:
        self.assertRefused("shard_9 is no shard", target="shard_9")
        self.assertRefused("owns these slots already", target="shard_1")
        self.assertRefused("does not own the slots [(400, 400)]", slots=[10, 400])
        self.assertRefused("does not own", slots=[])

    def test_a_server_that_is_down(self) -> None:
        with server_down("shard_2"):
            self.assertRefused("shard_2 cannot be reached")

    def test_settings_of_the_servers(self) -> None:
        for alias, name, value, text in (
            ("shard_1", "wal_level", "replica", "wal_level = replica. Set it to logical"),
            ("shard_1", "max_slot_wal_keep_size", "-1", "ALTER SYSTEM SET max_slot_wal_keep"),
            ("shard_1", "max_replication_slots", "1", "has 1 free of max_replication_slots"),
            ("shard_1", "max_wal_senders", "0", "has 0 free of max_wal_senders"),
            ("shard_2", "max_logical_replication_workers", "2", "has 2 free of max_logical"),
            ("shard_2", "max_active_replication_origins", "2", "has 2 free of max_active"),
        ):
            with self.subTest(name), self.setting(alias, name, value):
                self.assertRefused(text)

    def test_a_database_that_is_not_set_up(self) -> None:
        address = {**connections["shard_1"].settings_dict}
        self.execute("shard_1", "CREATE DATABASE other")
        with pointed_to({"shard_2": {**address, "NAME": "other"}}):
            self.assertRefused("shard_2 is not set up yet. Run `manage.py migrate`")
        self.execute("shard_1", "DROP DATABASE other WITH (FORCE)")

    def test_a_server_that_the_other_cannot_reach(self) -> None:
        nowhere = "host=/nowhere dbname=app user=postgres password=secret"
        with mock.patch.object(prechecks, "replication_address", return_value=nowhere):
            self.assertRefused("cannot connect to shard_1", "DATABASE_SHARD_1_REPLICATION_URL")
            try:
                self.begin()
            except MoveRefused as error:
                self.assertNotIn("secret", str(error))

    def test_different_migrations(self) -> None:
        statement = "INSERT INTO django_migrations (app, name, applied) VALUES ('x', 'y', now())"
        self.execute("shard_2", statement)
        self.addCleanup(self.execute, "shard_2", "DELETE FROM django_migrations WHERE app = 'x'")
        self.assertRefused("differ in migrations (x.y)", "manage.py migrate")

    def test_rows_and_replication_left_over(self) -> None:
        row = (
            "SET session_replication_role = replica; INSERT INTO users_profile (user_id, plan,"
            " country, display_name, bio, settings, created_at, updated_at) VALUES"
            f" ('{user_id(10)}', '', '', '', '', '{{}}', now(), now())"
        )
        self.execute("shard_2", row)
        self.assertRefused("1 rows of these slots in users_profile", "check --repair")
        delete = "SET session_replication_role = replica; DELETE FROM users_profile"
        self.execute("shard_2", delete)
        for make, drop in (
            ("CREATE PUBLICATION sharding_move_9_x", "DROP PUBLICATION sharding_move_9_x"),
            (
                "SELECT pg_create_logical_replication_slot('sharding_move_9_x', 'pgoutput')",
                "SELECT pg_drop_replication_slot('sharding_move_9_x')",
            ),
        ):
            self.execute("shard_1", make)
            self.assertRefused("of a move that is no more", drop)
            self.execute("shard_1", drop)

    def test_an_old_writer(self) -> None:
        with (
            mock.patch.object(prechecks, "_OLD", 0),
            psycopg.connect(self.servers.url("shard_1")) as client,
        ):
            client.execute("CREATE TABLE busy ()")
            self.assertRefused("have been writing for more than", f"{client.info.backend_pid}")
            client.rollback()

    def test_rights(self) -> None:
        self.execute("shard_2", "CREATE ROLE clerk LOGIN")
        with mock.patch.object(prechecks, "value", self.as_clerk(prechecks.value)):
            self.assertRefused(
                "GRANT pg_create_subscription", "without a password", "lacks CREATE", "not own"
            )
        self.execute("shard_2", "DROP ROLE clerk")

    def as_clerk(self, original: Any) -> Any:
        def value(alias: str, query: Any, parameters: Any = ()) -> Any:
            if alias != "shard_2" or not isinstance(query, str) or "pg_control" in query:
                return original(alias, query, parameters)
            with connections[alias].cursor() as cursor:
                cursor.execute("SET ROLE clerk")
                try:
                    cursor.execute(query, parameters or None)
                    row = cursor.fetchone()
                    return row[0] if row else None
                finally:
                    cursor.execute("RESET ROLE")

        return value

    def test_a_full_disk(self) -> None:
        with mock.patch.object(prechecks, "_free_bytes", return_value=1):
            self.assertRefused("has 0.0 GB free on its disk")

    def test_the_free_space_is_asked_for(self) -> None:
        self.assertGreater(prechecks._free_bytes("shard_2") or 0, 1_000_000)

    def test_migrating_is_refused_while_a_move_runs(self) -> None:
        move = self.begin()
        with self.assertRaisesMessage(CommandError, "is under way, in the state planned"):
            call_command("migrate", verbosity=0)
        call_command("migrate", check_unapplied=True, verbosity=0)
        run.abort(move, quiet)

    def test_the_address_for_replication(self) -> None:
        self.assertIn("shard_1", servers.replication_address("shard_1"))
        given = {"REPLICATION": {"host": "elsewhere", "dbname": "app", "password": "a b"}}
        with mock.patch.dict(connections["shard_1"].settings_dict, given):
            self.assertEqual(
                servers.replication_address("shard_1"), "host=elsewhere dbname=app password='a b'"
            )
