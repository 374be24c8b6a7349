"""Databases to break: for a while, aliases lead to other ones, empty or on servers of their own.

For SimpleTestCase with `databases`, not for TestCase: its transaction would lose its connection.
To make a database unreachable beside an open transaction, see `tests.support.server_down`.
"""

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django.db import connections
from psycopg.conninfo import conninfo_to_dict

from config.embedded import Cluster
from sharding import slot_cache

__all__ = ["disconnect", "own_servers", "pointed_to", "pool_options", "scratch_databases"]

_SCRATCH = "scratch"


@contextmanager
def pointed_to(addresses: Mapping[str, Mapping[str, Any]]) -> Iterator[None]:
    """Change connection settings (alias -> setting -> value) inside this block."""
    before = {alias: {**connections[alias].settings_dict} for alias in addresses}
    _point(addresses)
    try:
        yield
    finally:
        _point(before)


@contextmanager
def pool_options(*aliases: str, **options: Any) -> Iterator[None]:
    """Change options of these aliases' pools inside this block."""
    before = {alias: connections[alias].settings_dict["OPTIONS"] for alias in aliases}
    after = {alias: given | {"pool": given["pool"] | options} for alias, given in before.items()}
    with pointed_to({alias: {"OPTIONS": given} for alias, given in after.items()}):
        yield


@contextmanager
def scratch_databases(*aliases: str) -> Iterator[None]:
    """Point aliases, all unless given, to empty databases on the servers that they already use."""
    # Schemas, in truth: a database takes a hundred times longer to make.
    chosen = aliases or tuple(connections)
    options = {alias: connections[alias].settings_dict["OPTIONS"] for alias in chosen}
    for alias in chosen:
        _execute(alias, f"DROP SCHEMA IF EXISTS {_SCRATCH} CASCADE; CREATE SCHEMA {_SCRATCH}")
    try:
        with pointed_to({alias: {"OPTIONS": _in_scratch(options[alias])} for alias in chosen}):
            yield
    finally:
        for alias in chosen:
            _execute(alias, f"DROP SCHEMA {_SCRATCH} CASCADE")


@contextmanager
def own_servers(*aliases: str) -> Iterator[Cluster]:
    """Point aliases to new, empty servers that may be killed; delete them at the end."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)  # as root, the servers run as another user
    cluster = Cluster(folder / "postgres", aliases, durable=False)
    try:
        cluster.start()
        with pointed_to({alias: _address(cluster.url(alias)) for alias in aliases}):
            yield cluster
    finally:
        cluster.destroy()
        shutil.rmtree(folder)


def disconnect(alias: str) -> None:
    """Close this thread's connection to an alias, and the process's pool."""
    connections[alias].close()
    connections[alias].close_pool()  # type: ignore[attr-defined]


def _point(addresses: Mapping[str, Mapping[str, Any]]) -> None:
    for alias, address in addresses.items():
        if connections[alias].in_atomic_block:
            raise AssertionError(f"{alias} is inside a transaction, which would be lost.")
        disconnect(alias)
        connections[alias].settings_dict.update(address)
    slot_cache.clear()


def _address(url: str) -> dict[str, Any]:
    parts = conninfo_to_dict(url)
    return {
        "NAME": parts["dbname"],
        "USER": parts["user"],
        "PASSWORD": "",
        "HOST": parts["host"],
        "PORT": parts["port"],
    }


def _in_scratch(options: Mapping[str, Any]) -> dict[str, Any]:
    # Of several settings the last one counts.
    return {**options, "options": f"{options.get('options', '')} -c search_path={_SCRATCH}"}


def _execute(alias: str, statement: str) -> None:
    with connections[alias].cursor() as cursor:
        cursor.execute(statement)
