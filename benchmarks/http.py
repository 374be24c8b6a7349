"""The API over shards against the same views on one plain database, under the same gunicorn.

    python -m benchmarks.http [--users 20000] [--requests 1500] [--runs 5]

The ratio is of requests a second: 0.9 means nine for ten of the plain site.
"""

import argparse
import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection

from benchmarks.harness import Way, benchmark_databases, compare

_CLIENTS = 4
_BATCH = 10_000
_START = 30  # seconds


def main() -> None:
    options = _options()
    with benchmark_databases():
        keys = _fill(options.users)
        token = _token()
        plain = {"DJANGO_SETTINGS_MODULE": "benchmarks.plain_site"}
        with _site(**plain) as one, _site() as shards:
            sites = one, shards
            users = [f"/api/users/{key}" for key in keys[: options.requests]]
            _compare("/api/users/{id}", sites, users, token, runs=options.runs, goal=0.9)
            profiles = ["/api/profiles"] * (options.requests // 3)
            _compare("/api/profiles", sites, profiles, token, runs=options.runs, goal=0.6)


def _compare(
    name: str, sites: tuple[int, int], paths: Sequence[str], token: str, *, runs: int, goal: float
) -> None:
    ratio = compare(
        baseline=Way("one plain database", lambda: _send(sites[0], paths, token)),
        candidate=Way("primary and three shards", lambda: _send(sites[1], paths, token)),
        runs=runs,
    )
    print(f"GET {name} (goal {goal})")
    print(ratio.table(amount=len(paths), unit="requests"))


def _send(port: int, paths: Sequence[str], token: str) -> None:
    """Ask for all of them, over as many connections as there are clients."""

    def client(number: int) -> None:
        connection = HTTPConnection("127.0.0.1", port, timeout=30)
        for path in paths[number::_CLIENTS]:
            connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
            response = connection.getresponse()
            body = response.read()
            if response.status != 200:
                raise SystemExit(f"GET {path}: {response.status} {body[:500]!r}")
        connection.close()

    with ThreadPoolExecutor(_CLIENTS) as threads:
        list(threads.map(client, range(_CLIENTS)))


@contextmanager
def _site(**env: str) -> Iterator[int]:
    """Run the site under gunicorn; give its port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    given = {**os.environ, "PORT": str(port), "API_RATE_USER": "off", "HTTPS": "off"}
    given |= {"ALLOWED_HOSTS": "127.0.0.1", **env}
    command = [sys.executable, "-m", "gunicorn", "-c", "config/gunicorn.py", "config.wsgi"]
    process = subprocess.Popen(
        command, env=given, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT
    )
    try:
        _wait_for(port)
        yield port
    finally:
        process.terminate()
        process.wait(_START)


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + _START
    while time.monotonic() < deadline:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise SystemExit("gunicorn did not start.")


def _fill(number: int) -> list[uuid.UUID]:
    """Store so many users; their profiles on the shards, and in a plain table on the primary."""
    from django.db import connection, connections

    from benchmarks.plain_urls import PlainProfile
    from users.models import Profile, User

    keys = [uuid.uuid4() for _ in range(number)]
    start = datetime(2025, 1, 1, tzinfo=UTC)
    with connection.schema_editor() as editor:
        editor.create_model(PlainProfile)
    User.objects.bulk_create(
        (User(id=key, email=f"{key}@example.com", name="Somebody") for key in keys), _BATCH
    )
    for model in (Profile, PlainProfile):
        model.objects.bulk_create(
            [
                model(
                    user_id=key,
                    display_name=f"user {place}",
                    country="CH",
                    created_at=start + timedelta(minutes=place),
                )
                for place, key in enumerate(keys)
            ],
            _BATCH,
        )
    for alias in connections:
        with connections[alias].cursor() as cursor:
            cursor.execute("VACUUM ANALYZE")
    return keys


def _token() -> str:
    from knox.models import AuthToken

    from users.models import User

    root = User.objects.create_superuser("root@example.com")
    return AuthToken.objects.create(root)[1]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--requests", type=int, default=1500, help="of users; of profiles a third")
    parser.add_argument("--runs", type=int, default=5)
    return parser.parse_args()


if __name__ == "__main__":
    main()
