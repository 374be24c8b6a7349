"""How a process ends: with its connections closed."""

import signal
import subprocess

from django.test import SimpleTestCase, TestCase

from tests.support import ServerLog, environment, run_program

NAME = "test-lifecycle"
# Connected to two databases, then waiting for its input to end.
CONNECT = """
import signal, sys
from django.db import connections
for alias in ("default", "analytics"):
    connections[alias].ensure_connection()
print("connected", flush=True)
sys.stdin.read()
"""
# Where Python ignores what is raised; so it does in what every import calls at its end.
IGNORED = """
import os
class Deaf:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
Deaf()
sys.stdin.read()
"""
SLOW_END = """
try:
    signal.pause()
finally:
    print("ending", flush=True)
    sys.stdin.read()
    print("ended", flush=True)
"""
# A pool of forked workers, which terminate() ends by SIGTERM.
FORKED = """
import os, signal, time
from multiprocessing import get_context
def work():
    try:
        time.sleep(60)
    except SystemExit:
        time.sleep(60)
process = get_context("fork").Process(target=work)
process.start()
os.kill(process.pid, signal.SIGTERM)
process.join(30)
print(process.exitcode)
"""


class LifecycleTests(TestCase):
    databases = {"default", "analytics"}

    def setUp(self):
        self.servers = [ServerLog("default"), ServerLog("analytics")]
        for server in self.servers:
            self.addCleanup(server.close)
        self.abandoned = [server.abandoned() for server in self.servers]

    def start(self, code: str) -> subprocess.Popen[str]:
        process = run_program("manage", "shell", "-v0", "-c", code, env=environment(NAME))
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        assert process.stdout
        self.assertEqual(process.stdout.readline(), "connected\n")
        for server in self.servers:
            self.assertGreater(server.connected(NAME), 0)
        return process

    def assertConnectionsClosed(self):
        for server in self.servers:
            server.wait_until_gone(NAME)
        self.assertEqual([server.abandoned() for server in self.servers], self.abandoned)

    def test_command_told_to_stop_closes_its_connections_and_exits_0(self):
        process = self.start(CONNECT)
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(30), 0)
        self.assertConnectionsClosed()

    def test_told_so_where_no_exception_is_heard(self):
        process = self.start(CONNECT.replace("sys.stdin.read()\n", IGNORED))
        self.assertEqual(process.wait(30), 0)
        self.assertConnectionsClosed()

    def test_uncaught_error_closes_its_connections_and_exits_1(self):
        process = self.start(CONNECT + "raise RuntimeError('uncaught')")
        output, _ = process.communicate("")
        self.assertEqual(process.returncode, 1)
        self.assertIn("RuntimeError: uncaught", output)
        self.assertConnectionsClosed()

    def test_a_second_signal_does_not_interrupt_the_end(self):
        process = self.start(CONNECT.replace("sys.stdin.read()", SLOW_END))
        process.send_signal(signal.SIGTERM)
        assert process.stdout
        self.assertEqual(process.stdout.readline(), "ending\n")
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate("")
        self.assertEqual((process.returncode, output), (0, "ended\n"))
        self.assertConnectionsClosed()

    def test_killed_its_connections_end_with_it(self):
        process = self.start(CONNECT)
        process.kill()
        for server in self.servers:
            server.wait_until_gone(NAME)


class ForkedTests(SimpleTestCase):
    def test_a_forked_child_ends_by_the_signal_as_it_would_without_us(self):
        process = run_program("manage", "shell", "-v0", "-c", FORKED, env=environment(NAME))
        output, _ = process.communicate(timeout=60)
        self.assertEqual(output, f"{-signal.SIGTERM}\n")
