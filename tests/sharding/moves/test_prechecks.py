"""Every refusal before a move, with what to do; and that nothing was touched."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import psycopg
from django.core.management import CommandError, call_command
from django.db import connections

from sharding import fence, identity, ownership, slot_cache
from sharding.errors import MoveRefused
from sharding.models import Identity, Move
from sharding.moves import prechecks, run, servers, status
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

    def test_two_databases_of_one_server(self) -> None:
        original = prechecks.value

        def said(asked: str, query: Any, parameters: Any = ()) -> Any:
            of_the_server = "pg_control_system" in str(query)
            return original("shard_1" if of_the_server else asked, query, parameters)

        with mock.patch.object(prechecks, "value", said):
            self.assertRefused("are databases of one server", "Give shard_2 a server of its own")

    def test_a_guard_that_says_something_else(self) -> None:
        self.execute("shard_2", "UPDATE sharding_slotowner SET move = 7 WHERE slot = 400")
        undo = "UPDATE sharding_slotowner SET move = NULL WHERE slot = 400"
        self.addCleanup(self.execute, "shard_2", undo)
        self.assertRefused("The guard of shard_2 is not as its slots say", "manage.py migrate")

    def test_another_shard_s_server(self) -> None:
        self.addCleanup(self.execute, "shard_2", "UPDATE sharding_identity SET alias = 'shard_2'")
        self.execute("shard_2", "UPDATE sharding_identity SET alias = 'shard_7'")
        with identity.unchecked():
            self.assertRefused("says that it is shard_7", "Correct DATABASE_SHARD_2_URL")

    def test_a_table_that_is_not_identified_by_its_key(self) -> None:
        self.addCleanup(self.install)
        self.execute("shard_1", "ALTER TABLE users_activity REPLICA IDENTITY DEFAULT")
        self.assertRefused(
            "users_activity is identified for replication without user_id",
            "unique constraint that contains user_id",
        )

    def install(self) -> None:
        with connections["shard_1"].cursor() as cursor:
            fence.install(cursor)

    def test_a_record_of_the_slots(self) -> None:
        with ownership.changing("shard_2") as cursor:
            ownership.set_state(cursor, [SLOTS[0]], "owned", move=None)
        self.addCleanup(self.forget)
        with identity.unchecked():
            # Found sooner, as a wrong owner, but for a shard that is only just set up.
            self.assertIn(
                f"shard_2 has a record of the slots [({SLOTS[0]}, {SLOTS[0]})]",
                "\n".join(prechecks._nothing_left_over("shard_1", "shard_2", SLOTS)),
            )
            self.assertRefused("owns other slots by its own account", "shards check")

    def forget(self) -> None:
        with ownership.changing("shard_2") as cursor:
            ownership.release(cursor, [SLOTS[0]])

    def test_a_database_that_is_not_set_up(self) -> None:
        address = {**connections["shard_1"].settings_dict}
        self.execute("shard_1", "CREATE DATABASE other")
        with pointed_to({"shard_2": {**address, "NAME": "other"}}):
            text = "shard_2 is not set up yet. Run `manage.py migrate`."
            problems = list(prechecks._is_itself("shard_1", "shard_2", SLOTS))
            self.assertEqual(problems, [text])  # and nothing that only follows from it
            self.assertRefused(text)
            found = status.shard_status("shard_2", slot_cache.current())
            self.assertEqual((found.health, found.problems), ("wrong", [text]))
        self.execute("shard_1", "DROP DATABASE other WITH (FORCE)")

    def test_one_that_could_not_be_told_who_it_is(self) -> None:
        """It was migrated while the primary was down, and owns nothing yet."""
        who = Identity.objects.using("shard_2").get()
        self.addCleanup(who.save, using="shard_2", force_insert=True)
        self.execute("shard_2", "DELETE FROM sharding_identity")
        with mock.patch.object(identity, "problem", return_value=""):
            self.assertRefused("shard_2 is not set up yet. Run `manage.py migrate`")

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
        for alias in OWN[1:]:
            self.execute(alias, statement)
            self.assertRefused("differ in migrations (x.y)", "manage.py migrate")
            self.execute(alias, "DELETE FROM django_migrations WHERE app = 'x'")

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
            client.execute("PREPARE TRANSACTION 'forgotten'")
            self.addCleanup(self.execute, "shard_1", "ROLLBACK PREPARED 'forgotten'")
            self.assertRefused("prepared transaction forgotten", "ROLLBACK PREPARED")

    def test_rights(self) -> None:
        own = ("lacks CREATE", "does not own users_activity, users_profile: ALTER TABLE")
        for alias, texts in (
            ("shard_2", ("GRANT pg_create_subscription", "without a password", *own)),
            ("shard_1", ("may not replicate: ALTER ROLE", *own)),
        ):
            self.execute(alias, "CREATE ROLE clerk LOGIN")
            self.addCleanup(self.execute, alias, "DROP ROLE clerk")
            asked_by_clerk = self.as_clerk(prechecks.value, alias)
            with self.subTest(alias), mock.patch.object(prechecks, "value", asked_by_clerk):
                self.assertRefused(*texts)

    def as_clerk(self, original: Any, there: str) -> Any:
        def value(alias: str, query: Any, parameters: Any = ()) -> Any:
            if alias != there or not isinstance(query, str) or "pg_control" in query:
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
