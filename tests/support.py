"""What several tests need: a server that is down, and processes that use the test databases."""

import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import IO, Any
from unittest import mock
from urllib.parse import quote, urlencode
from uuid import UUID

import psycopg
from django.conf import settings
from django.db import connections
from django.utils import timezone

from sharding import get_shard_for_user_id, ownership
from sharding.hashing import slot_for
from users.primary import breaker

__all__ = [
    "ServerLog",
    "environment",
    "fenced",
    "hand_over",
    "run_program",
    "server_down",
    "wait_until",
]

_DEADLINE = 30  # seconds
# At its end Python frees most objects, connections among them, and freeing one closes it: by luck,
# for any reference that is left prevents it. Here one is left to each.
_KEEP = """
import ctypes, psycopg
def keep(self, *args, original=psycopg.Connection.__init__, **kwargs):
    original(self, *args, **kwargs)
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(self))
psycopg.Connection.__init__ = keep
""".strip()


@contextmanager
def server_down(alias: str) -> Iterator[None]:
    """Make one database unreachable for this thread, beside the test's open transaction."""
    original = connections[alias]
    broken = original.copy()
    broken.settings_dict["HOST"] = "/nowhere"
    broken.settings_dict["OPTIONS"].pop("pool", None)  # it would hand out live connections
    connections[alias] = broken
    try:
        yield
    finally:
        broken.close()
        connections[alias] = original
        _close_breaker()


def _close_breaker() -> None:
    """Do not let the next test find it open for a second; nor see it logged that it is closed."""
    with mock.patch.object(logging.getLogger("users.primary"), "disabled", True):
        breaker.close()


def environment(application_name: str) -> dict[str, str]:
    """Return an environment for a process of its own, on this test's databases."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("DATABASE_")}
    return inherited | {
        "DJANGO_SETTINGS_MODULE": "config.settings",
        "SECRET_KEY": "for-tests",
        "ALLOWED_HOSTS": "127.0.0.1",
        "HTTPS": "off",
        "DEBUG": "off",
        **{_variable(alias): _site_url(alias, application_name) for alias in connections},
    }


def run_program(
    module: str, *arguments: str, env: Mapping[str, str], output: IO[str] | None = None
) -> subprocess.Popen[str]:
    """Start `python -m module` in the project's folder, its input and output piped.

    Where it may write much, `output` is the file that it writes to.

    What the program does not close is not closed by Python when it ends either, see _KEEP.
    """
    code = f"{_KEEP}\nimport runpy; runpy.run_module({module!r}, run_name='__main__')"
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=settings.BASE_DIR,
        env=env,
        stdin=subprocess.PIPE,
        stdout=output or subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_until(condition: Callable[[], Any], what: str) -> Any:
    """Return what the condition returns as soon as that is true; fail after a while."""
    deadline = time.monotonic() + _DEADLINE
    while not (result := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"Waited {_DEADLINE} seconds for {what}.")
        time.sleep(0.02)
    return result


def hand_over(slots: Collection[int], source: str, target: str) -> None:
    """Make another shard the owner of slots, at once and without their rows."""
    with ownership.changing(source) as cursor:
        ownership.release(cursor, slots)
    with ownership.changing(target) as cursor:
        ownership.claim(cursor, slots)


@contextmanager
def fenced(user_id: UUID) -> Iterator[None]:
    """Let the user's shard refuse writes, as it does while the user's slot is handed over."""
    alias, slot = get_shard_for_user_id(user_id), slot_for(user_id)
    until = timezone.now() + timedelta(hours=1)
    with ownership.changing(alias) as cursor:
        ownership.set_state(cursor, [slot], "fenced", move=7, fenced_until=until)
    try:
        yield
    finally:
        with ownership.changing(alias) as cursor:
            ownership.claim(cursor, [slot])


class ServerLog:
    """What one database's server says about its clients, on a connection of its own."""

    def __init__(self, alias: str) -> None:
        # Inside a test's transaction the views would not change.
        self.connection = psycopg.connect(_url(alias, "tests"), autocommit=True)

    def close(self) -> None:
        self.connection.close()

    def connected(self, application_name: str) -> int:
        """How many connections there are under this name."""
        query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s"
        return self._value(query, application_name)

    def wait_until_gone(self, application_name: str) -> None:
        """Wait until there is no connection under this name."""
        wait_until(lambda: not self.connected(application_name), "the connections to end")

    def abandoned(self) -> int:
        """How many clients went without a farewell so far."""
        return self._value(
            "SELECT sessions_abandoned FROM pg_stat_database WHERE datname = current_database()"
        )

    def _value(self, query: str, *parameters: object) -> Any:
        row = self.connection.execute(query, parameters).fetchone()
        assert row
        return row[0]


def _variable(alias: str) -> str:
    name = "primary" if alias == settings.PRIMARY_DATABASE else alias
    return f"DATABASE_{name.upper()}_URL"


def _site_url(alias: str, application_name: str) -> str:
    pooled = connections[alias].settings_dict.get("DISABLE_SERVER_SIDE_CURSORS")
    return _url(alias, application_name) + ("&pgbouncer=true" if pooled else "")


def _url(alias: str, application_name: str) -> str:
    given = connections[alias].settings_dict
    account = ":".join(quote(given[key], safe="") for key in ("USER", "PASSWORD") if given[key])
    options = {key.lower(): given[key] for key in ("HOST", "PORT") if given[key]}
    query = urlencode(options | {"application_name": application_name})
    return f"postgresql://{account}@/{given['NAME']}?{query}"
