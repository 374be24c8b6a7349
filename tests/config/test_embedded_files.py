"""What the embedded servers make at their first start, where, and that it goes again."""

import os
import unittest
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import mock

from config import pgbinaries
from config.embedded import Cluster, EmbeddedError
from tests.config.clusters import as_root, make_cluster, make_folder, query


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
