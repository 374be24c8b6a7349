"""The site under gunicorn, as a process of its own."""

import signal
import socket
import urllib.request
from urllib.error import HTTPError, URLError

from django.test import TestCase

from tests.support import ServerLog, environment, run_program, wait_until

NAME = "test-gunicorn"


class GunicornTests(TestCase):
    def setUp(self):
        self.server = ServerLog("default")
        self.addCleanup(self.server.close)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        env = environment(NAME) | {"PORT": str(self.port), "WEB_CONCURRENCY": "1"}
        env.pop("HOST", None)
        self.process = run_program("gunicorn", "-c", "config/gunicorn.py", "config.wsgi", env=env)
        self.addCleanup(self.process.communicate)
        self.addCleanup(self.process.kill)

    def get(self, path: str, **headers: str) -> tuple[int, str] | None:
        """The status and the text, or None while nothing listens."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                return response.status, response.read().decode()
        except HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except URLError:
            self.assertIsNone(self.process.poll(), "gunicorn has ended")
            return None

    def test_serves_and_on_sigterm_closes_its_connections(self):
        self.assertEqual(wait_until(lambda: self.get("/healthz"), "gunicorn"), (200, "ok"))
        self.assertEqual(self.server.connected(NAME), 0, "/healthz touched the database")
        abandoned = self.server.abandoned()
        # The session, which there is none of, is looked up.
        self.assertIsNotNone(self.get("/admin/", Cookie="sessionid=unknown-session"))
        self.assertGreater(self.server.connected(NAME), 0)
        self.process.send_signal(signal.SIGTERM)
        self.assertEqual(self.process.wait(30), 0)
        self.server.wait_until_gone(NAME)
        self.assertEqual(self.server.abandoned(), abandoned)
