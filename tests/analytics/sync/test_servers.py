"""Servers that are killed in the middle of a sync, and servers restored from a copy."""

import shutil
import unittest
from collections.abc import Callable
from pathlib import Path

from django.contrib.auth.models import Group, Permission
from django.contrib.contenttypes.models import ContentType
from django.db import connections, models

from analytics.models import ProfileAnalytics, SyncCheckpoint, SyncPosition, SyncRun, UserAnalytics
from analytics.sync import SyncFailed
from analytics.sync.batch import begin
from config.embedded import Cluster
from sharding.errors import DatabaseUnavailable
from tests.analytics.sync import SOAK
from tests.analytics.sync.steps import POINTS, Point, at, point_name
from tests.analytics.sync.support import (
    USER,
    SyncTestCase,
    add_users,
    connect,
    copies,
    execute,
    key,
    logged,
    sync,
)
from tests.outage import disconnect, own_servers
from users.models import User, UserChange

A, B, C, D = (key(number) for number in range(1, 5))
SET_NAME = "UPDATE users_user SET name = %s WHERE id = %s"
TABLES: dict[str, list[type[models.Model]]] = {
    "default": [ContentType, Permission, Group, User, UserChange, SyncPosition],
    "analytics": [UserAnalytics, ProfileAnalytics, SyncCheckpoint, SyncRun],
}


class ServersTests(SyncTestCase):
    """On a primary and an analytics server of their own."""

    aliases = ("default", "analytics")
    cluster: Cluster

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.cluster = cls.enterClassContext(own_servers("default", "analytics"))
        for alias, tables in TABLES.items():
            with connections[alias].schema_editor() as editor:
                for table in tables:
                    editor.create_model(table)
        for trigger in User._meta.triggers:  # type: ignore[attr-defined]
            trigger.install(User, database="default")

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

    def revive(self, alias: str) -> None:
        if not self.cluster.running(alias):
            self.cluster.start(alias)
        disconnect(alias)

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
            lost += execute("default", "SELECT count(*) FROM users_user WHERE id = %s", [C])[0][0]
            self.assertHeals()
        self.assertGreater(lost, 0, "It never lost anything: this shows nothing.")

    def late_change(self) -> None:
        with connect("default", autocommit=True) as client:
            client.execute("DELETE FROM users_user WHERE id = %s", [C])

    def copy(self, alias: str) -> Path:
        self.stop(alias)
        folder = self.cluster.home / alias
        saved = self.cluster.home / f"{alias}.saved"
        shutil.copytree(folder, saved, symlinks=True)
        self._own(folder, saved)
        self.addCleanup(shutil.rmtree, saved, ignore_errors=True)
        self.cluster.start(alias)
        return saved

    def restore(self, alias: str, saved: Path) -> None:
        self.stop(alias)
        folder = self.cluster.home / alias
        shutil.rmtree(folder)
        saved.rename(folder)
        self.cluster.start(alias)

    def stop(self, alias: str) -> None:
        disconnect(alias)
        self.cluster.stop(alias)

    def _own(self, folder: Path, copy: Path) -> None:
        """As root, the servers run as another user."""
        owner = folder.stat()
        for path in [copy, *copy.rglob("*")]:
            shutil.chown(path, owner.st_uid, owner.st_gid)

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
