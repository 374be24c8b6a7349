"""A world of writers, syncs and accidents for hypothesis to play: see SyncMachine."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any
from unittest import mock
from uuid import UUID

import psycopg
from django.db import OperationalError, connections
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from analytics.sync import (
    Overtaken,
    Source,
    SyncFailed,
    full,
    sync_source,
    sync_user,
    verify,
)
from sharding import get_shard_for_user_id
from tests.analytics.sync.steps import POINTS, Point, at
from tests.analytics.sync.support import (
    SHARD,
    USER,
    clear,
    connect,
    copies,
    key,
    lost,
    rows,
    sync,
)

__all__ = ["SyncMachine"]

_ALIASES = ("default", "analytics", "shard_1")
_TABLES = {
    "default": ("users_user", "users_userchange", "analytics_syncposition"),
    "shard_1": ("users_profile", "users_profilechange", "analytics_syncposition"),
    "analytics": (
        "analytics_useranalytics",
        "analytics_profileanalytics",
        "analytics_synccheckpoint",
    ),
}
_SEQUENCES = {"default": "users_userchange_id_seq", "shard_1": "users_profilechange_id_seq"}
# Where the batch holds no lock that another sync waits for.
_UNLOCKED = [("before", "claim"), *POINTS[3:5], *POINTS[7:9], POINTS[-1]]
# Where the batch has no transaction open on that side, so that it survives a restore of it.
_AWAY = {"source": POINTS[3:9], "analytics": POINTS[7:9]}


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


class Died(OperationalError):
    """The sync's process, or its connection, is no more."""


@dataclass
class Late:
    """A transaction that wrote to one key and is not committed yet."""

    source: Source
    client: psycopg.Connection[Any]
    key: UUID
    version: str | None


@dataclass
class Runner:
    source: Source
    batches: Iterator[Any]


@dataclass
class World:
    """What outlives an example: clients, a thread for another sync, and the keys that are used."""

    stack: ExitStack = field(default_factory=ExitStack)

    def __post_init__(self) -> None:
        self.writers = {alias: self._client(alias, autocommit=True) for alias in _ALIASES}
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
    for alias in _ALIASES:
        with connections[alias].cursor() as cursor:
            cursor.execute("SET lock_timeout = '100ms'")


sources = st.sampled_from(SOURCES)
numbers = st.integers(0, 4)  # of a key
choices = st.integers(0, 7)  # of a runner, a late transaction or a copy, modulo how many there are


class SyncMachine(RuleBasedStateMachine):
    """Writers, syncs that stop or are overtaken anywhere, and restores of either side.

    After each step: no difference that is not logged while the checkpoint is said to be good, and
    no copy that never was a row. After quiet: equal.
    """

    world: World

    @initialize()
    def begin(self) -> None:
        clear(_ALIASES)
        self.versions: dict[Source, dict[UUID, set[str]]] = {source: {} for source in SOURCES}
        self.last_version = 0
        self.late: list[Late] = []
        self.runners: list[Runner] = []
        self.saved: dict[str, list[Any]] = {alias: [] for alias in _ALIASES}
        self.patches = ExitStack()
        # So that a few rows suffice for a reconcile with several batches, of either kind.
        for name, value in {"_RANGES": 1, "_PAGES": 1}.items():
            self.patches.enter_context(mock.patch.object(full, name, value))
        much = mock.patch.object(full, "_differs_much", lambda found: found.differing_rows > 2)
        self.patches.enter_context(much)

    # Writers

    @rule(source=sources, number=numbers)
    def store(self, source: Source, number: int) -> None:
        self._store(source, self.world.keys[number])

    @rule(source=sources, number=numbers)
    def delete(self, source: Source, number: int) -> None:
        user_id = self.world.keys[number]
        if user_id not in self._locked(source):
            table = TABLES[source]
            self._write(source, f"DELETE FROM {table.name} WHERE {table.key} = %s", [user_id])

    @rule(source=sources)
    def store_all(self, source: Source) -> None:
        """Insert whoever is missing, in one statement."""
        free = set(self.world.keys) - self._locked(source) - rows(source).keys()
        if free:
            version = self._version(source, *free)
            self._write(source, TABLES[source].insert, [version, list(free)])

    @rule(source=sources)
    def update_all(self, source: Source) -> None:
        table = TABLES[source]
        free = list(set(self.world.keys) - self._locked(source))
        version = self._version(source, *free)
        query = f"UPDATE {table.name} SET {table.version} = %s WHERE {table.key} = ANY(%s)"
        self._write(source, query, [version, free])

    @rule(source=sources)
    def update_what_is_not_copied(self, source: Source) -> None:
        """Move rows within the table, without a word in the log."""
        table = TABLES[source]
        free = list(set(self.world.keys) - self._locked(source))
        query = (
            f"UPDATE {table.name} SET {table.idle} = repeat('x', 120) WHERE {table.key} = ANY(%s)"
        )
        self._write(source, query, [free])

    @rule(source=sources, number=numbers, other=numbers)
    def change_id(self, source: Source, number: int, other: int) -> None:
        table = TABLES[source]
        old, new = self.world.keys[number], self.world.keys[other]
        if {old, new} & self._locked(source) or new in rows(source):
            return
        version = self._version(source, new)
        query = (
            f"UPDATE {table.name} SET {table.key} = %s, {table.version} = %s WHERE {table.key} = %s"
        )
        self._write(source, query, [new, version, old])

    @rule(source=sources)
    def truncate(self, source: Source) -> None:
        if not self._locked(source):
            self._write(source, f"TRUNCATE {TABLES[source].name} CASCADE")

    @rule(source=sources, number=numbers, deletes=st.booleans())
    def begin_late(self, source: Source, number: int, deletes: bool) -> None:
        """Write in a transaction that commits later: its number in the log is taken already."""
        user_id = self.world.keys[number]
        busy = [late.client for late in self.late]
        free = [client for client in self.world.spare[source] if client not in busy]
        if user_id in self._locked(source) or not free:
            return
        table, version = TABLES[source], None
        free[0].execute(f"DELETE FROM {table.name} WHERE {table.key} = %s", [user_id])
        if not deletes:
            version = self._version(source)
            free[0].execute(table.insert, [version, [user_id]])
        self.late.append(Late(source, free[0], user_id, version))

    @precondition(lambda self: self.late)
    @rule(choice=choices, commits=st.booleans())
    def end_late(self, choice: int, commits: bool) -> None:
        self._end_late(self.late.pop(choice % len(self.late)), commits=commits)

    # Syncs

    @rule(source=sources, whole=st.booleans(), batch_size=st.sampled_from([1, 2, 50]))
    def start(self, source: Source, whole: bool, batch_size: int) -> None:
        batches = sync_source(source, full=whole, batch_size=batch_size)
        self.runners.append(Runner(source, batches))

    @precondition(lambda self: self.runners)
    @rule(choice=choices)
    def go_on(self, choice: int) -> None:
        self._go_on(self.runners[choice % len(self.runners)])

    @precondition(lambda self: self.runners)
    @rule(choice=choices)
    def stop(self, choice: int) -> None:
        runner = self.runners.pop(choice % len(self.runners))
        runner.batches.close()  # type: ignore[attr-defined]

    @precondition(lambda self: self.runners)
    @rule(choice=choices, point=st.sampled_from(POINTS), turn=st.integers(1, 2))
    def die(self, choice: int, point: Point, turn: int) -> None:
        def death() -> None:
            raise Died("gone")

        self._go_on(self.runners[choice % len(self.runners)], point, death, turn=turn)

    @precondition(lambda self: self.runners)
    @rule(choice=choices, point=st.sampled_from(_UNLOCKED), turn=st.integers(1, 2))
    def sleep_while_another_works(self, choice: int, point: Point, turn: int) -> None:
        runner = self.runners[choice % len(self.runners)]

        def other() -> None:
            self.world.thread.submit(_sync_if_possible, runner.source).result()

        self._go_on(runner, point, other, turn=turn)

    @precondition(lambda self: self.runners)
    @rule(choice=choices, point=st.sampled_from(_UNLOCKED), number=numbers)
    def sleep_while_a_user_is_synced(self, choice: int, point: Point, number: int) -> None:
        runner = self.runners[choice % len(self.runners)]

        def other() -> None:
            self.world.thread.submit(_sync_user_if_possible, self.world.keys[number]).result()

        self._go_on(runner, point, other)

    @precondition(lambda self: self.runners)
    @rule(choice=choices, point=st.sampled_from(POINTS), number=numbers)
    def sleep_while_one_writes(self, choice: int, point: Point, number: int) -> None:
        runner = self.runners[choice % len(self.runners)]
        user_id = self.world.keys[number]
        self._go_on(runner, point, lambda: self._store(runner.source, user_id))

    @rule(number=numbers)
    def sync_user(self, number: int) -> None:
        sync_user(self.world.keys[number])

    @rule(source=sources)
    def verify(self, source: Source) -> None:
        here, there = rows(source), copies(source)
        differing = {k for k in here.keys() | there.keys() if here.get(k) != there.get(k)}
        assert {k for _, keys in verify(source) for k in keys} == differing

    # Accidents

    @rule(alias=st.sampled_from(_ALIASES))
    def save(self, alias: str) -> None:
        """Copy everything on one side, as a backup does: what is committed."""
        writer = self.world.writers[alias]
        tables = {}
        for name in _TABLES[alias]:
            with writer.cursor().copy(f"COPY {name} TO STDOUT (FORMAT BINARY)") as copy:
                tables[name] = b"".join(copy)
        position = None
        if sequence := _SEQUENCES.get(alias):
            position = writer.execute(f"SELECT last_value, is_called FROM {sequence}").fetchone()
        self.saved[alias].append((tables, position))

    @rule(alias=st.sampled_from(_ALIASES), choice=choices)
    def restore(self, alias: str, choice: int) -> None:
        self._restore(alias, choice)

    @precondition(lambda self: self.runners)
    @rule(choice=choices, saved=choices, side=st.sampled_from(list(_AWAY)), data=st.data())
    def sleep_while_a_side_is_restored(
        self, choice: int, saved: int, side: str, data: st.DataObject
    ) -> None:
        runner = self.runners[choice % len(self.runners)]
        alias = runner.source.alias if side == "source" else side
        point = data.draw(st.sampled_from(_AWAY[side]))
        self._go_on(runner, point, lambda: self._restore(alias, saved))

    # What must be true

    @rule()
    def settle(self) -> None:
        """Let everything end; then both sides must be equal."""
        while self.late:
            self._end_late(self.late.pop(), commits=True)
        for runner in self.runners:
            runner.batches.close()  # type: ignore[attr-defined]
        self.runners.clear()
        for source in SOURCES:
            sync(source)
            assert copies(source) == rows(source)
            assert verify(source) == []

    @invariant()
    def nothing_is_lost(self) -> None:
        for source in SOURCES:
            assert lost(source) == set(), f"of {source.name}"

    @invariant()
    def every_copy_was_a_row(self) -> None:
        for source in SOURCES:
            position = 1 if source is USER else 1  # of email, name and of country, plan
            for user_id, values in copies(source).items():
                assert values[position] in self.versions[source].get(user_id, ()), values

    def teardown(self) -> None:
        if hasattr(self, "patches"):
            try:
                self.settle()
            finally:
                for late in self.late:
                    late.client.rollback()
                self.patches.close()

    def _store(self, source: Source, user_id: UUID) -> None:
        if user_id in self._locked(source):
            return
        table = TABLES[source]
        version = self._version(source, user_id)
        query = (
            f"{table.insert} ON CONFLICT ({table.key}) DO UPDATE SET {table.version} ="
            f" excluded.{table.version}"
        )
        self._write(source, query, [version, [user_id]])

    def _write(self, source: Source, query: str, parameters: list[Any] | None = None) -> None:
        self.world.writers[source.alias].execute(query, parameters)

    def _version(self, source: Source, *keys: UUID) -> str:
        """Return a version never used before, for these keys."""
        self.last_version += 1
        version = f"v{self.last_version}"
        for user_id in keys:
            self.versions[source].setdefault(user_id, set()).add(version)
        return version

    def _locked(self, source: Source) -> set[UUID]:
        return {late.key for late in self.late if late.source is source}

    def _end_late(self, late: Late, *, commits: bool) -> None:
        if not commits:
            late.client.rollback()
            return
        if late.version:
            self.versions[late.source].setdefault(late.key, set()).add(late.version)
        late.client.commit()

    def _go_on(
        self,
        runner: Runner,
        point: Point = ("", ""),
        action: Callable[[], Any] = lambda: None,
        *,
        turn: int = 1,
    ) -> None:
        try:
            with at(point, action, turn=turn):
                next(runner.batches)
        except (StopIteration, Overtaken, SyncFailed):
            self.runners.remove(runner)

    def _restore(self, alias: str, choice: int) -> None:
        if not self.saved[alias]:
            return
        tables, position = self.saved[alias][choice % len(self.saved[alias])]
        for late in [late for late in self.late if late.source.alias == alias]:
            self.late.remove(late)
            late.client.rollback()
        writer = self.world.writers[alias]
        with writer.transaction():
            writer.execute("SET LOCAL session_replication_role = replica")  # no triggers
            for name, content in tables.items():
                writer.execute(f"DELETE FROM {name}")
                with writer.cursor().copy(f"COPY {name} FROM STDIN (FORMAT BINARY)") as copy:
                    copy.write(content)
            if position:
                writer.execute(f"SELECT setval('{_SEQUENCES[alias]}', %s, %s)", position)


def _sync_if_possible(source: Source) -> None:
    try:
        sync(source, batch_size=2)
    except (Overtaken, SyncFailed):
        pass


def _sync_user_if_possible(user_id: UUID) -> None:
    try:
        sync_user(user_id)
    except SyncFailed:
        pass
