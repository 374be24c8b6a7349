"""The site as a process of its own, under gunicorn or uvicorn, and requests to it."""

import json
import os
import signal
import socket
import tempfile
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple
from unittest import TestCase
from urllib.error import HTTPError, URLError

from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.sessions.backends.db import SessionStore

from config import pgbinaries
from tests.support import environment, run_program, wait_until
from users.models import User

__all__ = ["GUNICORN", "UVICORN", "Answer", "Site", "session_of"]

GUNICORN = ("gunicorn", "-c", "config/gunicorn.py", "config.wsgi")
UVICORN = ("config.uvicorn",)


class Answer(NamedTuple):
    status: int
    text: str
    headers: dict[str, str]


class Site:
    """A site on a free port, which answers when this returns and is killed when the test ends."""

    def __init__(
        self, test: TestCase, name: str, program: tuple[str, ...] = GUNICORN, **env: str
    ) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        given = environment(name) | {"PORT": str(self.port), "WEB_CONCURRENCY": "1"} | env
        given |= {"UVICORN_PORT": str(self.port), "UVICORN_TIMEOUT_GRACEFUL_SHUTDOWN": "20"}
        for inherited in ("HOST", "PROMETHEUS_MULTIPROC_DIR"):
            given.pop(inherited, None)
        folder = Path(test.enterContext(tempfile.TemporaryDirectory()))
        self.log = folder / "log"
        given.setdefault("TMPDIR", str(folder))  # one that is killed cannot tidy up
        with self.log.open("w") as output:
            self.process = run_program(*program, env=given, output=output)
        test.addCleanup(self.process.communicate)
        test.addCleanup(self.kill)
        wait_until(lambda: self.get("/healthz"), "the site")

    def get(self, path: str, *, timeout: float = 30, **headers: str) -> Answer | None:
        """Return the answer, or None while nothing listens."""
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=timeout) as response:
                return Answer(response.status, response.read().decode(), dict(response.headers))
        except HTTPError as error:
            with error:
                return Answer(error.code, error.read().decode(), dict(error.headers))
        except URLError:
            assert self.process.poll() is None, f"It has ended:\n{self.log.read_text()}"
            return None

    @property
    def workers(self) -> list[int]:
        """The processes of gunicorn's workers."""
        return pgbinaries.children(self.process.pid)

    def stop(self) -> int:
        """Send SIGTERM, wait for the end and return the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)

    def kill(self) -> None:
        """Kill the process and its workers, which would go on for a second."""
        if self.process.poll() is None:
            workers = self.workers
            self.process.kill()
            for worker in workers:
                with suppress(ProcessLookupError):
                    os.kill(worker, signal.SIGKILL)

    def lines(self) -> list[dict[str, Any]]:
        """The log, each line of which is a JSON object."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]


def session_of(user: User) -> str:
    """Log a user in, and return the session's key; for a site with the SECRET_KEY of the tests."""
    session = SessionStore()
    session[SESSION_KEY] = str(user.pk)
    session[BACKEND_SESSION_KEY] = settings.AUTHENTICATION_BACKENDS[0]
    session[HASH_SESSION_KEY] = User.objects.get(pk=user.pk).get_session_auth_hash()
    session.create()
    assert session.session_key
    return session.session_key
