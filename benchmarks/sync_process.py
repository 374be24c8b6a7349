"""`sync_analytics` as a process of its own: its memory, and how soon it follows.

Import after setup.
"""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from django.db import connections

__all__ = ["followed", "peak_growth"]

_RATE = 500  # changes a second
_EVERY = 20  # one of so many is watched
_PAUSE = 0.01  # seconds between two looks, so the error of a wait
_PATIENCE = 120  # seconds
_MEASURED = """
import re, sys
import django
django.setup()
from django.core.management import call_command
from analytics.management.commands import sync_analytics

def resident(name):
    with open("/proc/self/status") as file:
        return int(re.search(name + r":\\s+(\\d+)", file.read())[1])

start = resident("VmRSS")
call_command("sync_analytics", *sys.argv[1:], "--no-progress", verbosity=0)
print((resident("VmHWM") - start) / 1024)
"""


def peak_growth(options: Sequence[str]) -> float:
    """Run the command, and return by how many MiB its resident memory grew at most."""
    done = subprocess.run(
        [sys.executable, "-c", _MEASURED, *options], check=True, capture_output=True, text=True
    )
    return float(done.stdout.split()[-1])


def followed(keys: list[Any]) -> tuple[float, list[float]]:
    """Change each user once, at a steady rate, under `--follow`.

    Return that rate, and for some of the changes the seconds from commit until analytics had them.
    """
    committed: dict[Any, float] = {}
    with _following():
        writer = threading.Thread(target=_write, args=[keys, committed])
        started = time.monotonic()
        writer.start()
        seen = _watch(keys[::_EVERY])
        writer.join()
    rate = len(keys) / (max(committed.values()) - started)
    return rate, [seen[key] - committed[key] for key in seen]


@contextmanager
def _following() -> Iterator[None]:
    command = [sys.executable, "-u", "manage.py", "sync_analytics", "--follow"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        process.stdout.readline()  # it says so when it begins
        yield
    finally:
        process.terminate()
        if process.wait(timeout=60):
            raise SystemExit(f"--follow ended with {process.returncode}.")


def _write(keys: list[Any], committed: dict[Any, float]) -> None:
    """Keep the rate: a transaction changes as many users as are due by then."""
    start, done = time.monotonic(), 0
    with connections["default"].cursor() as cursor:
        while done < len(keys):
            time.sleep(1 / _RATE)
            due = keys[done : int((time.monotonic() - start) * _RATE)]
            cursor.execute("UPDATE users_user SET name = 'followed' WHERE id = ANY(%s)", [due])
            committed |= dict.fromkeys(due, time.monotonic())
            done += len(due)
    connections.close_all()


def _watch(keys: Sequence[Any]) -> dict[Any, float]:
    query = (
        "SELECT user_id FROM analytics_useranalytics WHERE user_id = ANY(%s) AND name = 'followed'"
    )
    seen: dict[Any, float] = {}
    end = time.monotonic() + _PATIENCE
    with connections["analytics"].cursor() as cursor:
        while missing := [key for key in keys if key not in seen]:
            if time.monotonic() > end:
                raise SystemExit(f"{len(missing)} changes did not come to analytics.")
            time.sleep(_PAUSE)
            cursor.execute(query, [missing])
            now = time.monotonic()
            seen |= {key: now for (key,) in cursor.fetchall()}
    return seen
