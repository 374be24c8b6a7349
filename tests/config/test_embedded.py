"""The embedded servers: real ones, in temporary folders."""

import contextlib
import io
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
import unittest
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

import psycopg
from psycopg.conninfo import conninfo_to_dict

from config import embedded, pgbinaries, pgserver
from config.embedded import Cluster, EmbeddedError

PROJECT = Path(__file__).resolve().parent.parent.parent
TWO = ("default", "shard_1")
as_root = unittest.skipUnless(os.geteuid() == 0, "only root runs the servers as another user")


def make_folder(test: unittest.TestCase, *, mode: int = 0o755) -> Path:
    """A temporary folder; 0o755 so that as root the servers live in it and not in /var/lib."""
    folder = Path(tempfile.mkdtemp())
    test.addCleanup(shutil.rmtree, folder, ignore_errors=True)
    folder.chmod(mode)
    return folder


def make_cluster(
    test: unittest.TestCase, aliases: Sequence[str] = ("default",), folder: Path | None = None
) -> Cluster:
    cluster = Cluster(folder or make_folder(test) / "postgres", aliases, durable=False)
    test.addCleanup(cluster.destroy)
    return cluster


def query(cluster: Cluster, alias: str, statement: str) -> list[Any]:
    with psycopg.connect(cluster.url(alias), autocommit=True) as connection:
        cursor = connection.execute(statement)
        return [row[0] for row in cursor] if cursor.description else []


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def command_line(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "config.embedded", *arguments],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,
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


class FirstStartTests(unittest.TestCase):
    def test_concurrent_starts_make_one_server(self) -> None:
        cluster = make_cluster(self)
        again = Cluster(cluster.folder, cluster.aliases, durable=False)
        with ThreadPoolExecutor() as pool:
            started = [future.result() for future in map(pool.submit, [cluster.start, again.start])]
        self.assertEqual(sorted(started), [(), ("default",)])
        self.assertEqual(query(cluster, "default", "SELECT 1"), [1])

    def test_what_an_interrupted_initdb_left_is_removed(self) -> None:
        cluster = make_cluster(self)
        with (
            mock.patch.object(pgbinaries, "run", side_effect=KeyboardInterrupt),
            self.assertRaises(KeyboardInterrupt),
        ):
            cluster.start()
        self.assertFalse((cluster.home / "default").exists())
        self.assertTrue(list(cluster.home.glob("default.new-*")))
        self.assertEqual(cluster.start(), ("default",))
        self.assertFalse(list(cluster.home.glob("default.new-*")))

    def test_data_of_another_major_version_are_refused(self) -> None:
        cluster = make_cluster(self)
        (cluster.home / "default").mkdir(parents=True)
        pgbinaries.give(cluster.home / "default", pgbinaries.server_account(), 0o700)
        with self.assertRaisesRegex(EmbeddedError, "holds no server"):
            cluster.start()
        (cluster.home / "default" / "PG_VERSION").write_text("16\n")
        with self.assertRaisesRegex(EmbeddedError, "PostgreSQL 16, but 18 is installed"):
            cluster.start()

    @unittest.skipIf(os.geteuid() == 0, "root may write everywhere")
    def test_a_folder_of_another_user_is_refused(self) -> None:
        with self.assertRaisesRegex(EmbeddedError, "belong to user 0"):
            Cluster(Path("/usr")).status()

    @as_root
    def test_data_of_another_user_are_refused(self) -> None:
        cluster = make_cluster(self)
        (cluster.home / "default").mkdir(parents=True)
        with self.assertRaisesRegex(EmbeddedError, "belongs to user 0"):
            cluster.start()

    def test_without_the_wheel_the_error_names_the_variables(self) -> None:
        with (
            mock.patch("importlib.util.find_spec", return_value=None),
            self.assertRaisesRegex(EmbeddedError, "set DATABASE_PRIMARY_URL"),
        ):
            make_cluster(self).start()

    def test_stop_status_and_destroy_make_nothing(self) -> None:
        cluster = make_cluster(self)
        self.assertEqual(cluster.stop(), ())
        self.assertFalse(cluster.running("default"))
        cluster.destroy()
        self.assertFalse(cluster.folder.parent.joinpath("postgres").exists())


class DestroyTests(unittest.TestCase):
    def test_everything_goes_also_after_a_crash(self) -> None:
        cluster = make_cluster(self)
        cluster.start()
        noted = (cluster.home / "default" / "postmaster.pid").read_text().splitlines()
        cluster.kill("default")
        cluster.destroy()
        self.assertFalse(cluster.folder.exists())
        self.assertFalse(cluster.sockets.exists())
        memory = Path("/proc/sysvipc/shm")
        if memory.exists():
            used = [line.split()[1] for line in memory.read_text().splitlines()]
            self.assertNotIn(noted[6].split()[1], used)

    def test_what_is_not_ours_stays(self) -> None:
        cluster = make_cluster(self)
        cluster.folder.mkdir()
        (cluster.folder / "notes").touch()
        cluster.destroy()
        self.assertEqual([path.name for path in cluster.folder.iterdir()], ["notes"])


@as_root
class PrivateParentTests(unittest.TestCase):
    """A clone below a folder that only root may enter, such as /root."""

    def setUp(self) -> None:
        self.parent = make_folder(self, mode=0o700)
        self.cluster = make_cluster(self, folder=self.parent / "clone" / "var" / "postgres")

    def test_servers_live_elsewhere_and_no_mode_changes(self) -> None:
        parents = [self.parent, *self.parent.parents, Path("/var/lib")]
        before = [path.stat().st_mode for path in parents]
        self.cluster.start()
        self.assertEqual([path.stat().st_mode for path in parents], before)
        self.assertEqual(self.cluster.folder.readlink(), self.cluster.home)
        self.assertEqual(self.cluster.home.parent, Path("/var/lib"))
        self.assertEqual(query(self.cluster, "default", "SELECT 1"), [1])
        self.parent.chmod(0o755)
        self.assertEqual(self.cluster.start(), ())
        home = self.cluster.home
        self.cluster.destroy()
        self.assertFalse(home.exists())
        self.assertFalse(self.cluster.folder.is_symlink())

    def test_an_empty_folder_becomes_the_link(self) -> None:
        self.cluster.folder.mkdir(parents=True)
        self.cluster._make_home()
        self.assertTrue(self.cluster.folder.is_symlink())

    def test_a_folder_in_use_is_refused(self) -> None:
        (self.cluster.folder / "default").mkdir(parents=True)
        with self.assertRaisesRegex(EmbeddedError, "move it away"):
            self.cluster.start()

    def test_a_link_that_was_copied_from_another_clone_is_refused(self) -> None:
        self.cluster._make_home()
        copy = Cluster(self.parent / "copy")
        copy.folder.symlink_to(self.cluster.folder.readlink())
        with self.assertRaisesRegex(EmbeddedError, "remove it"):
            copy.destroy()


class CommandLineTests(unittest.TestCase):
    def make_initialised_cluster(self, aliases: Sequence[str]) -> Cluster:
        """With a primary that runs no more; the command would wait for the disk at each step."""
        cluster = make_cluster(self, aliases)
        cluster.start("default")
        cluster.stop()
        return cluster

    def test_a_life(self) -> None:
        cluster = self.make_initialised_cluster(embedded.ALIASES)
        for arguments, code, text in (
            (["status"], 3, "primary    stopped\n"),
            (["start", "primary"], 0, "primary    started\n"),
            (["start", "primary"], 0, "primary    already running\n"),
            (["status", "primary"], 0, "primary    running, process"),
            (["start", "shard_9"], 1, "There is no embedded server shard_9"),
            (["stop"], 0, "primary    stopped\n"),
            (["destroy"], 0, "Deleted"),
        ):
            with self.subTest(arguments=arguments):
                process = command_line("--folder", str(cluster.folder), *arguments)
                output, _ = process.communicate()
                self.assertEqual(process.returncode, code, output)
                self.assertIn(text, output)
        self.assertFalse(cluster.folder.exists())

    def test_ctrl_c_later_does_not_reach_the_servers(self) -> None:
        cluster = self.make_initialised_cluster(("default",))
        script = f"'{sys.executable}' -m config.embedded --folder '{cluster.folder}' start primary"
        with subprocess.Popen(
            ["sh", "-c", f"{script}; sleep 60"],
            cwd=PROJECT,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as shell:
            assert shell.stdout
            self.assertEqual(shell.stdout.readline(), "primary    started\n")
            os.killpg(shell.pid, signal.SIGINT)
            self.assertEqual(shell.wait(), -signal.SIGINT)
        self.assertEqual(query(cluster, "default", "SELECT 1"), [1])

    def test_ctrl_c_during_the_start(self) -> None:
        cluster = make_cluster(self, ("default",))
        for delay in (0.4, 0.8):
            process = command_line(
                "--folder", str(cluster.folder), "start", "primary", start_new_session=True
            )
            time.sleep(delay)
            os.killpg(process.pid, signal.SIGINT)
            process.communicate()
        cluster.start()
        self.assertEqual(query(cluster, "default", "SELECT 1"), [1])


if __name__ == "__main__":
    unittest.main()
