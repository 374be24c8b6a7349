"""What the tests of the sync share: rows to copy, a look at both sides, and second clients."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count, islice
from typing import Any, TypeVar
from uuid import UUID

import psycopg
from django.db import connections
from django.test import SimpleTestCase
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Composable

from analytics.sync import Source, SyncResult, indexes, sync_source, verify
from analytics.sync.batch import begin
from analytics.sync.described import PROFILES, USERS
from sharding import get_shard_for_user_id

__all__ = [
    "SHARD",
    "USER",
    "Copies",
    "SyncTestCase",
    "add_profiles",
    "add_users",
    "clear",
    "connect",
    "copies",
    "execute",
    "in_thread",
    "key",
    "logged",
    "lost",
    "owned_key",
    "rows",
    "sync",
]

T = TypeVar("T")
Copies = dict[UUID, tuple[Any, ...]]

USER = Source(USERS, "default")
SHARD = Source(PROFILES, "shard_1")

_TABLES = {
    "default": "users_user, users_userchange, analytics_syncposition",
    "analytics": "analytics_useranalytics, analytics_profileanalytics, analytics_synccheckpoint,"
    " analytics_syncrun",
    "shard": "users_profile, users_profilechange, analytics_syncposition",
}
_ADD = """
    INSERT INTO users_user (id, email, name, password, is_superuser, is_active, is_staff,
        date_joined, updated_at)
    SELECT id, id || '@example.com', %s, '', false, true, false, '2026-01-01', '2026-01-01'
    FROM unnest(%s::uuid[]) AS id
"""
_ADD_PROFILES = """
    INSERT INTO users_profile (user_id, plan, country, display_name, bio, settings, created_at,
        updated_at)
    SELECT id, %s, 'CH', '', '', '{}', '2026-01-01', '2026-01-01' FROM unnest(%s::uuid[]) AS id
"""


class SyncTestCase(SimpleTestCase):
    """Works on the test databases in transactions of its own, as the sync needs them."""

    databases = "__all__"
    aliases: Sequence[str] = ("default", "analytics", "shard_1", "shard_2", "shard_3")

    def setUp(self) -> None:
        super().setUp()
        clear(self.aliases)
        self.addCleanup(clear, self.aliases)

    def assertEqualSides(self, source: Source = USER) -> None:
        """Assert that analytics holds every row, value by value, no other, and knows it."""
        self.assertEqual(copies(source), rows(source))
        self.assertEqual(logged(source), [])
        self.assertEqual(list(verify(source)), [])
        self.assertEqual(begin(source).disagreement, "")

    def assertNothingLost(self, source: Source = USER) -> None:
        """Assert that whatever differs is known to: in the log, or by a reconcile that is owed."""
        self.assertEqual(lost(source), set())

    def assertHeals(self, source: Source = USER) -> None:
        """Assert that nothing was lost and that the next sync makes both sides equal."""
        self.assertNothingLost(source)
        sync(source)
        self.assertEqualSides(source)


def sync(source: Source = USER, **options: Any) -> SyncResult:
    """Sync to the end; return what all batches did together."""
    results = (progress.result for progress in sync_source(source, **options))
    return sum(results, start=SyncResult())


def add_users(keys: Iterable[UUID], name: str = "first") -> None:
    execute("default", _ADD, [name, list(keys)])


def add_profiles(alias: str, keys: Iterable[UUID], plan: str = "free") -> None:
    execute(alias, _ADD_PROFILES, [plan, list(keys)])


def key(number: int, *, byte: int | None = None) -> UUID:
    """A user's id; numbers below 256 are spread over the buckets, unless a first byte is given."""
    return UUID(bytes=bytes([number % 256 if byte is None else byte]) + number.to_bytes(15))


def owned_key(alias: str, number: int = 0) -> UUID:
    """The id of a user of a shard; another one for each number."""
    owned = (k for k in map(key, count()) if get_shard_for_user_id(k) == alias)
    return next(islice(owned, number, None))


def rows(source: Source = USER) -> Copies:
    """The rows of a source: their key -> the values that are copied."""
    query = SQL("SELECT {} FROM {}").format(SQL(", ").join(source.columns), source.table)
    return _by_key(execute(source.alias, query))


def copies(source: Source = USER) -> Copies:
    """The copies of a source's rows in analytics."""
    query = SQL("SELECT {} FROM {}").format(SQL(", ").join(source.target_columns), source.target)
    if source.shard_column is None:
        return _by_key(execute("analytics", query))
    query += SQL(" WHERE {} = %s").format(source.shard_column)
    return _by_key(execute("analytics", query, [source.alias]))


def logged(source: Source = USER) -> list[UUID | None]:
    """The keys in the log, oldest first."""
    query = SQL("SELECT user_id FROM {} ORDER BY id").format(source.log)
    return [row[0] for row in execute(source.alias, query)]


def lost(source: Source = USER) -> set[UUID]:
    """The keys that differ without anything that says so."""
    if begin(source).disagreement:
        return set()
    entries = set(logged(source))
    if None in entries:
        return set()
    here, there = rows(source), copies(source)
    differing = {k for k in here.keys() | there.keys() if here.get(k) != there.get(k)}
    return differing - entries


def execute(alias: str, statement: str | Composable, parameters: Sequence[Any] = ()) -> list[Any]:
    """Run a statement on Django's connection of this thread; return its rows, if it has any."""
    with connections[alias].cursor() as cursor:
        cursor.execute(statement, parameters or None)
        return cursor.fetchall() if cursor.description else []


def connect(alias: str, **options: Any) -> psycopg.Connection[Any]:
    """A client of its own, besides Django's. A lock that it cannot get fails it at once."""
    given = connections[alias].settings_dict
    names = {"host": "HOST", "port": "PORT", "dbname": "NAME", "user": "USER"}
    address = {name: given[setting] or None for name, setting in names.items()}
    conninfo = make_conninfo(
        "",
        **address,
        password=given["PASSWORD"] or None,
        options="-c lock_timeout=5s -c timezone=UTC",
    )
    return psycopg.connect(conninfo, **options)


def in_thread(function: Callable[[], T]) -> T:
    """Call a function in a thread, which has Django connections of its own."""

    def call() -> T:
        try:
            return function()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(call).result()


def clear(aliases: Iterable[str]) -> None:
    """Empty every table that the sync reads or writes; nor do indexes stay away."""
    for source in (USER, SHARD):
        if indexes.are_dropped(source):
            indexes.build(source)
    for alias in aliases:
        tables = _TABLES.get(alias, _TABLES["shard"])
        execute(alias, f"TRUNCATE {tables} CASCADE")
        if alias != "analytics":
            log = "users_userchange" if alias == "default" else "users_profilechange"
            execute(alias, f"DELETE FROM {log}")  # what the TRUNCATE logged


def _by_key(found: Iterable[Sequence[Any]]) -> Copies:
    return {row[0]: tuple(row[1:]) for row in found}
