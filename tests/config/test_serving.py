"""The site's processes: each with connections of its own, and none left on a server at the end."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from django.test import SimpleTestCase

from tests.config.serving import GUNICORN, UVICORN, Site
from tests.support import ServerLog, environment, run_program, wait_until

# No session has this key; it is looked up, on the primary.
COOKIE = "sessionid=unknown-session"
PRELOADED = (*GUNICORN[:-1], "--preload", "tests.config.preloaded")
BARE_UVICORN = ("uvicorn", "config.asgi:application", "--no-access-log")


class ServingTestCase(SimpleTestCase):
    databases = {"default"}

    def setUp(self) -> None:
        self.name = f"{type(self).__name__}-{os.getpid()}"
        self.server = ServerLog("default")
        self.addCleanup(self.server.close)
        self.abandoned = self.server.abandoned()

    def start(self, program: tuple[str, ...], **env: str) -> Site:
        return Site(self, self.name, program, **env)

    def connected(self) -> int:
        return self.server.connected(self.name)

    def ask(self, site: Site, times: int = 1) -> None:
        """Send requests at once that need the primary; each must be answered."""
        with ThreadPoolExecutor(times) as pool:
            found = [*pool.map(lambda _: site.get("/admin/login/", Cookie=COOKIE), range(times))]
        self.assertEqual({answer.status for answer in found if answer}, {200})

    def assertClosed(self) -> None:
        """No connection is left, and the server was told of the end of each."""
        self.server.wait_until_gone(self.name)
        self.assertEqual(self.server.abandoned(), self.abandoned)

    def assertFinishes(self, site: Site, code: int = 0) -> None:
        """Told to stop, it answers the request in hand, takes no other, and says goodbye."""
        other = ServerLog("default")  # inside its transaction the views do not change
        self.addCleanup(other.close)
        with ThreadPoolExecutor(1) as pool:
            with other.connection.transaction():
                other.connection.execute("LOCK django_session IN ACCESS EXCLUSIVE MODE")
                answer = pool.submit(site.get, "/admin/login/", Cookie=COOKIE)
                wait_until(self.is_waiting, "the request to wait for the lock")
                site.process.send_signal(signal.SIGTERM)
                wait_until(lambda: self.is_closed(site), "the port to be closed")
                self.assertFalse(answer.done())
            found = answer.result()
        self.assertEqual(found and found.status, 200)
        self.assertEqual(site.process.wait(30), code, site.log.read_text())
        self.assertClosed()

    def is_waiting(self) -> Any:
        query = (
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE application_name = %s AND wait_event_type = 'Lock'"
        )
        row = self.server.connection.execute(query, [self.name]).fetchone()
        return row and row[0]

    def is_closed(self, site: Site) -> bool:
        try:
            return site.get("/healthz", timeout=2) is None
        except (AssertionError, OSError):
            return True


class GunicornTests(ServingTestCase):
    def test_told_to_stop(self) -> None:
        site = self.start(GUNICORN)
        answer = site.get("/healthz")
        self.assertEqual((answer and answer.status, answer and answer.text), (200, "ok"))
        self.assertEqual(self.connected(), 0, "to be alive takes no database")
        self.assertFinishes(site)

    def test_loaded_before_the_fork(self) -> None:
        """What the master has opened is closed; no worker uses it."""
        site = self.start(PRELOADED, WEB_CONCURRENCY="2")
        wait_until(lambda: not self.connected(), "the master's connections to end")
        self.ask(site, times=24)
        self.assertGreater(self.connected(), 0)
        self.assertFinishes(site)

    def test_an_error_while_it_is_loaded(self) -> None:
        """In a worker, and before the fork: it ends, and leaves nothing open."""
        env = environment(self.name) | {"PORT": "0", "WEB_CONCURRENCY": "1"}
        for options in ((), ("--preload",)):
            with self.subTest(options):
                process = run_program(*GUNICORN[:-1], *options, "tests.config.broken", env=env)
                self.addCleanup(process.kill)
                output, _ = process.communicate(timeout=60)
                self.assertIn("This site is broken", output)
                self.assertIn(process.returncode, (1, 3))  # 3: gunicorn's, of a worker
                self.assertClosed()

    def test_a_worker_is_killed(self) -> None:
        site = self.start(GUNICORN)
        self.ask(site)
        (before,) = site.workers
        os.kill(before, signal.SIGKILL)
        self.server.wait_until_gone(self.name)
        wait_until(lambda: [w for w in site.workers if w != before], "another worker")
        self.ask(site)
        site.kill()
        self.server.wait_until_gone(self.name)

    def test_the_master_is_killed(self) -> None:
        """Its workers end by themselves."""
        site = self.start(GUNICORN)
        self.ask(site)
        site.process.kill()
        self.assertClosed()


class UvicornTests(ServingTestCase):
    def test_told_to_stop(self) -> None:
        site = self.start(UVICORN)
        self.ask(site)
        self.assertFinishes(site)

    def test_started_by_its_own_command(self) -> None:
        """It ends by the signal, as uvicorn does; the connections are closed before."""
        site = self.start(BARE_UVICORN)
        self.ask(site)
        self.assertFinishes(site, code=-signal.SIGTERM)

    def test_more_requests_than_connections(self) -> None:
        """Each request that runs has the connections that it wants; the others wait."""
        site = self.start(UVICORN, DATABASE_POOL_MIN="0", DATABASE_POOL_MAX="2")
        self.ask(site, times=24)
        self.assertLessEqual(self.connected(), 2)
        self.assertEqual(site.stop(), 0)
        self.assertClosed()

    def test_killed(self) -> None:
        site = self.start(UVICORN)
        self.ask(site)
        site.kill()
        self.server.wait_until_gone(self.name)
