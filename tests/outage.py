"""Databases to break: for a while, aliases lead to other ones, empty or on servers of their own.

For SimpleTestCase with `databases`, not for TestCase: its transaction would lose its connection.
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

__all__ = ["broken", "disconnect", "own_servers", "pointed_to", "scratch_databases"]


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
def scratch_databases(*aliases: str) -> Iterator[None]:
    """Point aliases, all unless given, to new, empty databases on the servers they already use."""
    chosen = aliases or tuple(connections)
    names = {alias: f"{connections[alias].settings_dict['NAME']}_scratch" for alias in chosen}
    try:
        for alias, name in names.items():
            _execute_beside(alias, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
            _execute_beside(alias, f'CREATE DATABASE "{name}"')
        with pointed_to({alias: {"NAME": name} for alias, name in names.items()}):
            yield
    finally:
        for alias, name in names.items():
            _execute_beside(alias, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


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


@contextmanager
def broken(*aliases: str) -> Iterator[None]:
    """Point aliases to a server that does not exist."""
    nowhere = {"HOST": "/nowhere", "PORT": "5432"}
    with pointed_to(dict.fromkeys(aliases, nowhere)):
        yield


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


def _execute_beside(alias: str, statement: str) -> None:
    with connections[alias]._nodb_cursor() as cursor:
        cursor.execute(statement)
