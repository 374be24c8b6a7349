"""Two sources to write to: how rows are written there, by whom, and transactions that end late."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import psycopg
from django.db import connections

from analytics.sync import Source
from sharding import get_shard_for_user_id
from tests.analytics.sync.support import SHARD, USER, connect, key

__all__ = ["ALIASES", "SOURCES", "TABLES", "Late", "Table", "World"]

ALIASES = ("default", "analytics", "shard_1")


@dataclass(frozen=True)
class Table:
    """How to write rows of one source. Of their values only the version matters."""

    name: str
    key: str
    version: str
    idle: str  # a column that is not copied
    insert: str


TABLES = {
    USER: Table(
        name="users_user",
        key="id",
        version="name",
        idle="password",
        insert="INSERT INTO users_user (id, name, email, password, is_superuser, is_active,"
        " is_staff, date_joined, updated_at) SELECT id, %s, id || '@example.com', '', false,"
        " true, false, '2026-01-01', '2026-01-01' FROM unnest(%s::uuid[]) AS id",
    ),
    SHARD: Table(
        name="users_profile",
        key="user_id",
        version="plan",
        idle="bio",
        insert="INSERT INTO users_profile (user_id, plan, country, display_name, bio, settings,"
        " created_at, updated_at) SELECT id, %s, 'CH', '', '', '{}', '2026-01-01', '2026-01-01'"
        " FROM unnest(%s::uuid[]) AS id",
    ),
}
SOURCES = list(TABLES)


@dataclass
class Late:
    """A transaction that wrote to one key and is not committed yet; perhaps it is prepared."""

    source: Source
    client: psycopg.Connection[Any]
    key: UUID
    version: str | None
    prepared: bool

    def commit(self) -> None:
        self._end(self.client.tpc_commit, self.client.commit)

    def rollback(self) -> None:
        self._end(self.client.tpc_rollback, self.client.rollback)

    def _end(self, prepared: Callable[[], None], other: Callable[[], None]) -> None:
        """End it, once: a second time there is nothing left to end."""
        prepared() if self.prepared else other()
        self.prepared = False


@dataclass
class World:
    """What outlives an example: clients, a thread for another sync, and the keys that are used."""

    stack: ExitStack = field(default_factory=ExitStack)

    def __post_init__(self) -> None:
        self.writers = {alias: self._client(alias, autocommit=True) for alias in ALIASES}
        self.spare = {source: [self._client(source.alias) for _ in range(2)] for source in SOURCES}
        self.thread = self.stack.enter_context(
            ThreadPoolExecutor(max_workers=1, initializer=_fail_soon)
        )
        self.stack.callback(lambda: self.thread.submit(connections.close_all).result())
        # Some in one bucket; of users whose profiles stand on the shard that is played with.
        numbers = (number for byte in (1, 1, 1, 200, 255) for number in range(byte, 60_000, 256))
        owned = (key(number) for number in numbers)
        found: dict[int, list[UUID]] = {}
        for user_id in owned:
            if get_shard_for_user_id(user_id) == SHARD.alias:
                found.setdefault(user_id.bytes[0], []).append(user_id)
        self.keys = [*found[1][:3], found[200][0], found[255][0]]

    def _client(self, alias: str, **options: Any) -> psycopg.Connection[Any]:
        client = connect(alias, **options)
        self.stack.callback(client.close)
        return client

    def close(self) -> None:
        self.stack.close()


def _fail_soon() -> None:
    for alias in ALIASES:
        with connections[alias].cursor() as cursor:
            cursor.execute("SET lock_timeout = '100ms'")
