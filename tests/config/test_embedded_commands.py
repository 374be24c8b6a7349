"""python -m config.embedded."""

import os
import signal
import subprocess
import sys
import time
import unittest
from collections.abc import Sequence

from config import embedded
from config.embedded import Cluster
from tests.config.clusters import PROJECT, command_line, make_cluster, query


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
