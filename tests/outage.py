"""Databases to break: for a while, aliases lead to other ones, empty or on servers of their own.

For SimpleTestCase with `databases`, not for TestCase: its transaction would lose its connection.
To make a database unreachable beside an open transaction, see `tests.support.server_down`.
"""

import functools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.db import connections
from django.test import override_settings
from psycopg.conninfo import conninfo_to_dict

from config.embedded import Cluster
from sharding import conf, slot_cache
from sharding.models import Shard

__all__ = [
    "disconnect",
    "migrated_servers",
    "own_servers",
    "pointed_to",
    "pool_options",
    "scratch_databases",
]

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
    # Beside new databases there may be others that belong to the installation before.
    unchecked = override_settings(SHARDING_CHECK_IDENTITY=False)
    for alias in chosen:
        _execute(alias, f"DROP SCHEMA IF EXISTS {_SCRATCH} CASCADE; CREATE SCHEMA {_SCRATCH}")
    try:
        with (
            _unregistered(chosen),
            unchecked,
            pointed_to({alias: {"OPTIONS": _in_scratch(options[alias])} for alias in chosen}),
        ):
            yield
    finally:
        for alias in chosen:
            _execute(alias, f"DROP SCHEMA {_SCRATCH} CASCADE")


@contextmanager
def own_servers(*aliases: str) -> Iterator[Cluster]:
    """Point aliases to new, empty servers that may be killed; delete them at the end."""
    with _servers(aliases) as cluster:
        yield cluster


@contextmanager
def migrated_servers(*aliases: str) -> Iterator[Cluster]:
    """The same, with all their tables: copies of servers that each process makes once."""
    with _servers(aliases, like=_migrated(aliases)) as cluster:
        _migrate(aliases)  # whoever knew the copied ones shall know these
        yield cluster


@contextmanager
def _servers(aliases: Sequence[str], *, like: Path | None = None) -> Iterator[Cluster]:
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)  # as root, the servers run as another user
    cluster = Cluster(folder / "postgres", aliases, durable=False)
    if like:
        subprocess.run(["cp", "-a", like, cluster.home], check=True)
    try:
        with _running(cluster):
            yield cluster
    finally:
        cluster.destroy()
        shutil.rmtree(folder)


@contextmanager
def _running(cluster: Cluster) -> Iterator[None]:
    cluster.start()
    with (
        _unregistered(cluster.aliases),
        override_settings(SHARDING_CHECK_IDENTITY=False),
        pointed_to({alias: _address(cluster.url(alias)) for alias in cluster.aliases}),
    ):
        yield


@functools.cache
def _migrated(aliases: tuple[str, ...]) -> Path:
    """Make servers with all tables and stop them; return where their files are."""
    # The runner deletes what begins with its number, and what a process that is gone has left.
    name = "-".join(["test", str(os.getpid()), *aliases])
    cluster = Cluster(settings.BASE_DIR / "var" / name, aliases, durable=False)
    with _running(cluster):
        _migrate(aliases)
    cluster.stop()
    return cluster.home


def _migrate(aliases: Sequence[str]) -> None:
    for alias in aliases:
        call_command("migrate", database=alias, verbosity=0)


def disconnect(alias: str) -> None:
    """Close this thread's connection to an alias, and the process's pool."""
    connections[alias].close()
    connections[alias].close_pool()  # type: ignore[attr-defined]


@contextmanager
def _unregistered(aliases: Collection[str]) -> Iterator[None]:
    """Let empty databases behind shards' aliases pass for the shards' first ones."""
    shards = Shard.objects.filter(alias__in=set(aliases) - {conf.primary()})
    # Beside a new primary there is nobody who would remember.
    before = [] if conf.primary() in aliases else list(shards)
    if before:
        shards.delete()
    try:
        yield
    finally:
        if before:
            Shard.objects.bulk_create(before, ignore_conflicts=True)


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
