"""The embedded servers: real ones, in temporary folders."""

import contextlib
import io
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import psycopg
from psycopg.conninfo import conninfo_to_dict

from config import embedded, pgbinaries, pgserver
from config.embedded import Cluster, EmbeddedError
from tests.config.clusters import (
    PROJECT,
    TWO,
    as_root,
    make_folder,
    mode_of,
    query,
)


class UrlTests(unittest.TestCase):
    def test_libpq_reads_it(self) -> None:
        cluster = Cluster(Path("/nowhere/at all/postgres"))
        parsed = conninfo_to_dict(cluster.url("shard_1"))
        self.assertEqual(parsed["host"], str(cluster.sockets / "shard_1"))
        self.assertEqual((parsed["user"], parsed["dbname"]), ("postgres", "app"))

    def test_touches_nothing(self) -> None:
        folder = make_folder(self)
        cluster = Cluster(folder / "postgres")
        self.assertEqual(len({cluster.url(alias) for alias in embedded.ALIASES}), 5)
        self.assertEqual(list(folder.iterdir()), [])
        self.assertFalse(cluster.sockets.exists())

    def test_stays_when_the_folder_becomes_a_link(self) -> None:
        folder = make_folder(self)
        before = Cluster(folder / "postgres").url("default")
        (folder / "postgres").symlink_to(make_folder(self))
        self.assertEqual(Cluster(folder / "postgres").url("default"), before)

    def host(self, folder: str, tmpdir: str) -> str:
        """The socket folder that an ordinary user with this TMPDIR gets."""
        user = mock.patch("os.geteuid", return_value=1000)
        with mock.patch.dict(os.environ, TMPDIR=tmpdir), user:
            return str(conninfo_to_dict(Cluster(Path(folder)).url("analytics"))["host"])

    def test_is_short_in_a_deep_folder_and_with_a_long_tmpdir(self) -> None:
        host = self.host("/deep" * 60, "/tmp/" + "long" * 30)
        self.assertLess(len(f"{host}/.s.PGSQL.5432"), 100)

    def test_is_in_the_temporary_folder_of_the_user(self) -> None:
        self.assertEqual(Path(self.host("/a", "/somewhere")).parents[1], Path("/somewhere"))
        self.assertEqual(Path(self.host("/a", "")).parents[1], Path("/tmp"))

    def test_differs_between_folders(self) -> None:
        urls = {Cluster(Path(folder)).url("default") for folder in ("/a/postgres", "/b/postgres")}
        self.assertEqual(len(urls), 2)

    def test_unknown_alias(self) -> None:
        with self.assertRaisesRegex(EmbeddedError, "shard_9, only primary, analytics"):
            embedded.default_cluster().url("shard_9")

    def test_import_needs_no_django_and_starts_nothing(self) -> None:
        code = "import sys, config.embedded as e; e.default_cluster().url('default'); "
        code += "sys.exit('django' in sys.modules or 'subprocess' not in sys.modules)"
        subprocess.run([sys.executable, "-c", code], cwd=PROJECT, check=True)


class LifeTests(unittest.TestCase):
    """Tests on one pair of servers, which every test finds running."""

    cluster: Cluster

    @classmethod
    def setUpClass(cls) -> None:
        folder = Path(tempfile.mkdtemp())
        cls.addClassCleanup(shutil.rmtree, folder)
        folder.chmod(0o755)
        cls.cluster = Cluster(folder / "postgres", TWO, durable=False)
        cls.addClassCleanup(cls.cluster.destroy)
        cls.cluster.start()

    def setUp(self) -> None:
        self.cluster.start()

    def test_starting_again_changes_nothing(self) -> None:
        before = self.cluster.status()
        self.assertEqual(self.cluster.start(), ())
        self.assertEqual(self.cluster.status(), before)

    def test_status(self) -> None:
        self.cluster.stop("shard_1")
        primary, shard = self.cluster.status()
        self.assertEqual((primary.alias, primary.running), ("default", True))
        self.assertEqual(primary.data, self.cluster.home / "default")
        self.assertEqual(shard[:3], ("shard_1", False, None))

    def test_stop_is_an_outage_of_one_alias(self) -> None:
        query(self.cluster, "shard_1", "CREATE TABLE stopped AS SELECT 1 AS one")
        self.assertEqual(self.cluster.stop("shard_1"), ("shard_1",))
        self.assertEqual(self.cluster.stop("shard_1"), ())
        self.assertEqual(query(self.cluster, "default", "SELECT 1"), [1])
        with self.assertRaises(psycopg.OperationalError):
            query(self.cluster, "shard_1", "SELECT 1")
        self.assertEqual(self.cluster.start(), ("shard_1",))
        self.assertEqual(query(self.cluster, "shard_1", "SELECT one FROM stopped"), [1])

    def test_kill_is_a_crash_that_keeps_what_was_committed(self) -> None:
        query(self.cluster, "default", "CREATE TABLE killed AS SELECT 1 AS one")
        with psycopg.connect(self.cluster.url("default")) as connection:
            connection.execute("INSERT INTO killed VALUES (2)")
            self.cluster.kill("default")
            connection.close()
        self.assertFalse(self.cluster.running("default"))
        self.assertEqual(self.cluster.start(), ("default",))
        self.assertEqual(query(self.cluster, "default", "SELECT one FROM killed"), [1])

    def test_kill_needs_a_running_server(self) -> None:
        self.cluster.stop("default")
        with self.assertRaisesRegex(EmbeddedError, "primary server, it does not run"):
            self.cluster.kill("default")

    def test_settings(self) -> None:
        wanted = {
            "wal_level": "logical",
            "listen_addresses": "",
            "cluster_name": "shard_1",
            "fsync": "off",
            "synchronous_commit": "on",
            "TimeZone": "UTC",
            "max_prepared_transactions": "20",
        }
        found = {name: query(self.cluster, "shard_1", f"SHOW {name}")[0] for name in wanted}
        self.assertEqual(found, wanted)

    def test_locale_is_the_same_on_every_system(self) -> None:
        columns = "datlocprovider::text || ' ' || datlocale || ' ' || pg_encoding_to_char(encoding)"
        statement = f"SELECT {columns} FROM pg_database WHERE datname = 'app'"
        self.assertEqual(query(self.cluster, "default", statement), ["b C.UTF-8 UTF8"])

    def test_sockets_and_data_are_private(self) -> None:
        for alias in TWO:
            folders = (self.cluster.sockets / alias, self.cluster.home / alias)
            for folder in folders:
                self.assertEqual(mode_of(folder), 0o700)
                self.assertEqual(folder.stat().st_uid, pgbinaries.server_account().uid)
        self.assertFalse(mode_of(self.cluster.sockets) & 0o066)

    def test_a_dropped_database_comes_back(self) -> None:
        with psycopg.connect(
            self.cluster.url("shard_1"), dbname="postgres", autocommit=True
        ) as connection:
            connection.execute("DROP DATABASE app WITH (FORCE)")
        self.assertEqual(self.cluster.start(), ())
        self.assertEqual(query(self.cluster, "shard_1", "SELECT 1"), [1])

    def test_start_waits_for_what_a_killed_start_still_does(self) -> None:
        unfinished = [psycopg.OperationalError("starting up"), psycopg.errors.UniqueViolation()]
        with mock.patch.object(
            pgserver.Server, "_create_database_if_missing", side_effect=[*unfinished, None]
        ) as create:
            self.assertEqual(self.cluster.start("default"), ())
        self.assertEqual(create.call_count, 3)

    def test_start_does_not_wait_for_a_server_that_ended(self) -> None:
        def stop(server: pgserver.Server) -> None:
            server.end(signal.SIGINT)
            raise psycopg.OperationalError("shutting down")

        with (
            mock.patch.object(pgserver.Server, "_create_database_if_missing", stop),
            self.assertRaisesRegex(EmbeddedError, "Cannot connect to the primary server"),
        ):
            self.cluster.start("default")

    def test_a_server_whose_socket_vanished_is_restarted(self) -> None:
        shutil.rmtree(self.cluster.sockets)
        self.assertEqual(self.cluster.start(), TWO)
        self.assertEqual(query(self.cluster, "default", "SELECT 1"), [1])

    def test_start_refuses_a_socket_folder_of_others(self) -> None:
        self.cluster.stop("default")
        folder = self.cluster.sockets / "default"
        folder.rmdir()
        folder.symlink_to(make_folder(self))
        self.addCleanup(folder.unlink)
        with self.assertRaisesRegex(EmbeddedError, "remove it"):
            self.cluster.start("default")

    @as_root
    def test_start_refuses_a_socket_folder_of_another_user(self) -> None:
        self.cluster.stop()
        os.chown(self.cluster.sockets, 12345, 12345)
        self.addCleanup(os.chown, self.cluster.sockets, 0, 0)
        with self.assertRaisesRegex(EmbeddedError, "another user's folder"):
            self.cluster.start()

    def test_start_takes_no_other_process_for_the_server(self) -> None:
        zombie = subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.DEVNULL)
        self.addCleanup(zombie.wait)
        other_server = self.cluster.status("shard_1")[0].pid
        for pid in (os.getpid(), zombie.pid, other_server, 2**22 + 1):
            with self.subTest(pid=pid):
                pid_file = self.cluster.home / "default" / "postmaster.pid"
                noted = pid_file.read_text().split("\n", 1)
                self.cluster.kill("default")
                pid_file.write_text(f"{pid}\n{noted[1]}")
                self.assertFalse(self.cluster.running("default"))
                self.assertEqual(self.cluster.start(), ("default",))

    def test_start_refuses_the_data_of_a_running_server_that_were_moved(self) -> None:
        moved = Cluster(self.cluster.folder.with_name("moved"), TWO)
        self.cluster.folder.rename(moved.folder)
        self.addCleanup(moved.folder.rename, self.cluster.folder)
        self.addCleanup(shutil.rmtree, moved.sockets)
        with self.assertRaisesRegex(EmbeddedError, "stop it first"):
            moved.start("default")

    def test_a_start_that_fails_shows_the_log(self) -> None:
        self.cluster.stop("default")
        with (
            mock.patch.dict(pgserver._SETTINGS, {"max_connections": "many"}),
            self.assertRaisesRegex(EmbeddedError, 'primary server.*\n.*"max_connections"'),
        ):
            self.cluster.start("default")

    def test_a_paused_server_can_be_stopped(self) -> None:
        pid = self.cluster.status("default")[0].pid
        assert pid
        os.kill(pid, signal.SIGSTOP)
        self.assertEqual(self.cluster.stop("default", mode="immediate"), ("default",))

    def test_command_line(self) -> None:
        self.cluster.stop("shard_1")
        out = io.StringIO()
        with (
            mock.patch.object(embedded, "default_cluster", return_value=self.cluster),
            contextlib.redirect_stdout(out),
        ):
            self.assertEqual(embedded.main(["status"]), 3)
            self.assertEqual(embedded.main(["status", "primary"]), 0)
            self.assertEqual(embedded.main(["start"]), 0)
            self.assertEqual(embedded.main(["status"]), 0)
            self.assertEqual(embedded.main(["stop", "shard_1"]), 0)
        self.assertIn("primary    already running\nshard_1    started\n", out.getvalue())
        self.assertTrue(out.getvalue().endswith("shard_1    stopped\n"))
