"""System checks that ask the servers: sharding.W030, more connections than a server takes, and
sharding.E031, a pooler in between that the settings do not know of."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.db import DatabaseError, connections
from django.db.backends.base.base import BaseDatabaseWrapper

from sharding import conf

__all__ = ["check_servers"]

# Two aliases on one server share its connections. What is reserved for others is not ours.
_SERVER = """
    SELECT (pg_control_system()).system_identifier, pg_backend_pid(),
           current_setting('max_connections')::int
           - current_setting('superuser_reserved_connections')::int
           - current_setting('reserved_connections')::int
"""


@dataclass
class _Server:
    places: int = 0
    wanted: int = 0
    aliases: list[str] = field(default_factory=list)


@register(Tags.database)
def check_servers(databases: Sequence[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """Look at the servers of these databases. One that cannot be reached is left to others."""
    found: list[CheckMessage] = []
    servers: dict[int, _Server] = defaultdict(_Server)
    for alias in databases or ():
        connection = connections[alias]
        try:
            with connection.cursor() as cursor:
                cursor.execute(_SERVER)
                identifier, process, places = cursor.fetchone()
        except DatabaseError:
            continue
        # A pooler answers in the server's place, and gives a number of its own.
        if process != connection.connection.info.backend_pid:
            found += _behind_pooler(connection)
            continue
        servers[identifier].places = places
        servers[identifier].wanted += conf.processes() * _largest_pool(connection)
        servers[identifier].aliases.append(conf.label(alias))
    return [*found, *_too_many(servers.values())]


def _behind_pooler(connection: BaseDatabaseWrapper) -> Iterator[CheckMessage]:
    if not connection.settings_dict.get("DISABLE_SERVER_SIDE_CURSORS"):
        yield Error(
            f"{conf.label(connection.alias)} is reached through a pooler such as PgBouncer, whose "
            f"transactions may each run in another session.",
            hint="Add pgbouncer=true to the parameters of its URL: then nothing is kept between "
            "transactions, neither cursors nor settings.",
            id="sharding.E031",
        )


def _too_many(servers: Any) -> Iterator[CheckMessage]:
    for server in servers:
        if server.wanted > server.places:
            yield Warning(
                f"{conf.processes()} processes may open {server.wanted} connections to the server "
                f"of {', '.join(server.aliases)}, which takes {server.places}.",
                hint="Lower DATABASE_POOL_MAX, raise max_connections, put PgBouncer in between "
                "(docs/scale.md), or correct DATABASE_PROCESSES, the number of processes on all "
                "machines.",
                id="sharding.W030",
            )


def _largest_pool(connection: BaseDatabaseWrapper) -> int:
    """How many connections one process may open; at least the one that it uses."""
    pool = connection.settings_dict["OPTIONS"].get("pool")
    return conf.pool_size(pool) if isinstance(pool, dict) else 1
