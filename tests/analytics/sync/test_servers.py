"""Servers that are killed in the middle of a sync, and servers restored from a copy."""

import unittest
from collections.abc import Callable
from io import StringIO
from threading import Thread

from django.core.management import CommandError, call_command
from django.db import connections

from analytics.models import SyncRun
from analytics.sync import SyncFailed, sync_key
from analytics.sync.batch import begin
from sharding.errors import DatabaseUnavailable
from tests.analytics.sync import SOAK
from tests.analytics.sync.servers import ServersTestCase
from tests.analytics.sync.steps import POINTS, Point, at, point_name
from tests.analytics.sync.support import (
    USER,
    add_users,
    clear,
    connect,
    copies,
    execute,
    key,
    logged,
    sync,
)
from tests.outage import disconnect
from tests.support import wait_until

A, B, C, D = (key(number) for number in range(1, 5))
SET_NAME = "UPDATE users_user SET name = %s WHERE id = %s"


class ServersTests(ServersTestCase):
    aliases = ("default", "analytics")

    def setUp(self) -> None:
        super().setUp()
        add_users([A, B, C])
        sync()

    def change(self) -> None:
        execute("default", SET_NAME, ["new", A])
        execute("default", "DELETE FROM users_user WHERE id = %s", [B])
        add_users([D])

    def kill(self, alias: str) -> Callable[[], None]:
        return lambda: self.cluster.kill(alias)

    def assertSurvives(self, alias: str, point: Point) -> None:
        """Kill a server at this point of a sync, start it again, and go on."""
        self.setUp()
        self.change()
        with at(point, self.kill(alias)), self.subTest(point_name(point), alias=alias):
            self.assertUnavailable(alias)
        self.revive(alias)
        self.assertHeals()

    def assertUnavailable(self, alias: str) -> None:
        try:
            sync()
        except DatabaseUnavailable as error:
            self.assertEqual(error.alias, alias)
        except SyncFailed as error:
            self.fail(str(error))

    def test_a_server_that_is_killed(self) -> None:
        points: dict[str, list[Point]] = {
            "analytics": [("before", "take_over commit"), ("after", "take_over commit")],
            "default": [("after", "claim commit"), ("before", "finish commit")],
        }
        for alias, chosen in points.items():
            for point in POINTS if SOAK else chosen:
                self.assertSurvives(alias, point)

    def test_a_primary_that_does_not_wait_for_its_disk(self) -> None:
        """What it lost, analytics must not have heard of."""
        execute("default", "ALTER SYSTEM SET synchronous_commit = off")
        execute("default", "ALTER SYSTEM SET wal_writer_delay = '10s'")
        self.addCleanup(execute, "default", "ALTER SYSTEM RESET ALL")
        execute("default", "SELECT pg_reload_conf()")
        lost = 0
        for point in POINTS if SOAK else [("after", "claim commit"), ("after", "take_over commit")]:
            self.setUp()
            disconnect("default")
            self.assertEqual(execute("default", "SHOW synchronous_commit"), [("off",)])
            self.change()

            def write_and_kill() -> None:
                # Only in the server's memory when it dies.
                self.late_change()
                self.cluster.kill("default")

            with at(point, write_and_kill), self.subTest(point_name(point)):
                self.assertUnavailable("default")
            self.revive("default")
            # A claim is on disk before analytics hears of it, else all would be compared now.
            self.assertEqual(begin(USER).disagreement, "")
            lost += execute("default", "SELECT count(*) FROM users_user WHERE id = %s", [C])[0][0]
            self.assertHeals()
        self.assertGreater(lost, 0, "It never lost anything: this shows nothing.")

    def late_change(self) -> None:
        with connect("default", autocommit=True) as client:
            client.execute("DELETE FROM users_user WHERE id = %s", [C])

    def test_an_answer_to_commit_that_is_lost_with_its_connection(self) -> None:
        """What waits for a standby is on disk: its server process ends before it answers."""
        for alias, step in (
            ("default", "claim commit"),
            ("analytics", "take_over commit"),
            ("default", "finish commit"),
        ):
            with self.subTest(step):
                self.setUp()
                self.change()
                losing = at(("before", step), lambda: self.lose_the_answer(alias))  # noqa: B023
                with losing, self.assertRaises(DatabaseUnavailable):
                    sync()
                disconnect(alias)
                self.assertTrue(self.committed(step))
                self.assertHeals()

    def lose_the_answer(self, alias: str) -> None:
        """Let the commit that is about to come wait for a standby, and then lose its connection."""
        pid = connections[alias].connection.info.backend_pid
        observer = connect(alias, autocommit=True)
        observer.execute("SET synchronous_commit = local")
        observer.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
        observer.execute("SELECT pg_reload_conf()")
        shown = "SHOW synchronous_standby_names"
        wait_until(lambda: observer.execute(shown).fetchone() == ("nobody",), "the setting")
        observer.execute("CHECKPOINT")  # it is the checkpointer who tells the others of it

        def lose() -> None:
            process = "SELECT FROM pg_stat_activity WHERE pid = %s"
            waiting = f"{process} AND wait_event = 'SyncRep'"
            with observer:
                wait_until(lambda: observer.execute(waiting, [pid]).rowcount, "the commit to wait")
                observer.execute("SELECT pg_terminate_backend(%s)", [pid])
                wait_until(lambda: not observer.execute(process, [pid]).rowcount, "its end")
                observer.execute("ALTER SYSTEM RESET synchronous_standby_names")
                observer.execute("SELECT pg_reload_conf()")

        thread = Thread(target=lose)
        self.addCleanup(thread.join)
        thread.start()

    def committed(self, step: str) -> bool:
        """Whether the step that the sync got no answer to was done."""
        turn = begin(USER)
        match step:
            case "claim commit":
                return turn.claimed != turn.applied == turn.token
            case "take_over commit":
                return turn.claimed == turn.token != turn.applied
        return not logged()

    def test_a_disk_that_is_full(self) -> None:
        """The table of the copies can grow no more: its file is the device that always is full."""
        self.addCleanup(clear, ["shard_1", "shard_2", "shard_3"])
        execute("analytics", "TRUNCATE analytics_useranalytics")
        path = execute("analytics", "SELECT pg_relation_filepath('analytics_useranalytics')")[0][0]
        file = self.cluster.home / "analytics" / path
        self.stop("analytics")
        saved = file.rename(file.with_suffix(".saved"))
        file.symlink_to("/dev/full")
        self.cluster.start("analytics")
        self.change()
        output = StringIO()
        with self.assertRaisesRegex(CommandError, "Not synced: users"):
            call_command("sync_analytics", "--full", progress=False, stdout=output, stderr=output)
        said = [line for line in output.getvalue().splitlines() if "No space left" in line]
        self.assertEqual(len(said), 1, output.getvalue())
        self.assertTrue(said[0].startswith("users: Database analytics stopped the sync: "))
        self.assertIn("No space left", SyncRun.objects.get(source="users").error)
        self.assertNothingLost()
        self.stop("analytics")
        saved.replace(file)
        self.cluster.start("analytics")
        self.assertHeals()

    def test_a_standby_is_refused(self) -> None:
        self.change()
        signal = self.cluster.home / "default" / "standby.signal"
        self.stop("default")
        signal.touch()
        self.cluster.start("default")
        try:
            for refused in (sync, lambda: sync_key(USER, A)):
                with self.assertRaisesRegex(SyncFailed, "Database primary is a standby"):
                    refused()
        finally:
            self.stop("default")
            signal.unlink()
            self.cluster.start("default")
        self.assertHeals()

    def test_a_side_that_is_restored(self) -> None:
        """To a copy of its data folder, made while it was stopped."""
        for alias in self.aliases:
            with self.subTest(alias):
                self.setUp()
                saved = self.copy(alias)
                self.change()
                sync()
                self.restore(alias, saved)
                self.assertRegex(begin(USER).disagreement, "restored")
                if alias == "default":  # it goes on before anybody notices
                    execute("default", SET_NAME, ["after", C])
                    add_users([key(9)])
                self.assertHeals()
        self.assertIn(D, copies())

    @unittest.skipUnless(SOAK, "restarts both servers twice")
    def test_both_sides_restored_to_one_time(self) -> None:
        saved = {alias: self.copy(alias) for alias in self.aliases}
        self.change()
        sync()
        for alias in self.aliases:
            self.restore(alias, saved[alias])
        self.assertEqual(begin(USER).disagreement, "")
        self.assertEqualSides()
        self.assertEqual(logged(), [])
