"""A PgBouncer in front of every database, that gives each transaction to another connection."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import SkipTest

import psycopg
from django.db import connections
from django.test import SimpleTestCase

from config.pgbinaries import give, server_account
from tests.outage import pointed_to
from tests.support import wait_until

__all__ = ["ThroughPgBouncer", "pgbouncer"]

_PORT = "6432"
_POOL = 4
_SETTINGS = f"""
[pgbouncer]
pool_mode = transaction
listen_port = {_PORT}
unix_socket_dir = {{folder}}
auth_type = any
default_pool_size = {_POOL}
server_round_robin = 1
server_login_retry = 1
query_wait_timeout = 1
max_client_conn = 300
logfile = {{folder}}/log
"""


class ThroughPgBouncer(SimpleTestCase):
    """Comes before another test case, whose tests then run through PgBouncer."""

    @classmethod
    def setUpClass(cls) -> None:
        require_pgbouncer()
        cls.enterClassContext(pgbouncer())
        super().setUpClass()


def require_pgbouncer() -> None:
    """Skip the test where there is no PgBouncer; fail it where .ci/run has installed one."""
    if not shutil.which("pgbouncer"):
        message = "PgBouncer is not installed: apt-get install pgbouncer"
        raise AssertionError(message) if os.environ.get("EVERY_PROGRAM") else SkipTest(message)


@contextmanager
def pgbouncer(*, marked: bool = True) -> Iterator[Path]:
    """Point all aliases to a PgBouncer; `marked`, as a URL with pgbouncer=true does."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        give(folder, server_account(), 0o700)
        settings = _write(folder)
        user = ["--user", "nobody"] if os.geteuid() == 0 else []
        with subprocess.Popen(["pgbouncer", "--quiet", *user, str(settings)]) as process:
            try:
                wait_until(lambda: _answers(folder), "PgBouncer")
                with pointed_to({alias: _address(alias, folder, marked) for alias in connections}):
                    _fill()
                    yield folder
            finally:
                process.terminate()


def _write(folder: Path) -> Path:
    lines = []
    for alias in connections:
        given = connections[alias].settings_dict
        server = {"host": given["HOST"], "port": given["PORT"], "dbname": given["NAME"]}
        server |= {"user": given["USER"], "password": given["PASSWORD"]}
        parameters = " ".join(f"{key}='{value}'" for key, value in server.items() if value)
        lines.append(f"{alias} = {parameters}")
    file = folder / "pgbouncer.ini"
    file.write_text("\n".join(["[databases]", *lines]) + _SETTINGS.format(folder=folder))
    give(file, server_account(), 0o600)
    return file


def _address(alias: str, folder: Path, marked: bool) -> dict[str, Any]:
    given = connections[alias].settings_dict
    options = {key: value for key, value in given["OPTIONS"].items() if key != "options"}
    server = {"NAME": alias, "HOST": str(folder), "PORT": _PORT, "OPTIONS": options}
    return server | {"DISABLE_SERVER_SIDE_CURSORS": marked}


def _answers(folder: Path) -> bool:
    try:
        psycopg.connect(f"host={folder} port={_PORT} dbname=default user=any").close()
    except psycopg.OperationalError:
        return False
    return True


def _fill() -> None:
    """Make PgBouncer open all its connections, among which each transaction then gets another."""
    for alias in connections:
        with ExitStack() as stack:
            for _ in range(_POOL):
                given = connections[alias].get_connection_params()
                stack.enter_context(psycopg.connect(**given)).execute("SELECT 1")
