"""A world of writers, syncs and accidents for hypothesis to play: see SyncMachine."""

import os
from collections.abc import Callable, Generator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any, cast
from unittest import mock
from uuid import UUID

from django.db import OperationalError
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
from tests.analytics.sync.steps import POINTS, Point, at
from tests.analytics.sync.support import (
    clear,
    copies,
    lost,
    rows,
    sync,
)
from tests.analytics.sync.world import ALIASES, SOURCES, TABLES, Late, World

__all__ = ["SyncMachine"]

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


class Died(OperationalError):
    """The sync's process, or its connection, is no more."""


@dataclass
class Runner:
    source: Source
    batches: Generator[Any]


sources = st.sampled_from(SOURCES)
numbers = st.integers(0, 4)  # of a key
choices = st.integers(0, 7)  # of a late transaction or a copy, modulo how many there are
# Which of those under way, or a new one: its source, whether it is a full one, its batch size.
Choice = tuple[int, Source, bool, int]
runners = st.tuples(
    st.integers(0, 2), sources, st.sampled_from([False, False, True]), st.sampled_from([1, 2, 50])
)
ROW_WRITES = ("store", "delete", "take back", "insert all", "update all", "move", "new id")
WRITES = (*ROW_WRITES, "truncate", "rewrite")  # the last two would wait for a sync's locks


class SyncMachine(RuleBasedStateMachine):
    """Writers, syncs that stop or are overtaken anywhere, and restores of either side.

    After each step: no difference that is not logged while the checkpoint is said to be good, and
    no copy that never was a row. After quiet: equal.
    """

    world: World

    @initialize()
    def begin(self) -> None:
        clear(ALIASES)
        self.versions: dict[Source, dict[UUID, set[str]]] = {source: {} for source in SOURCES}
        self.last_version = 0
        self.late: list[Late] = []
        self.runners: list[Runner] = []
        self.touched: set[Source] = set()
        self.saved: dict[str, list[Any]] = {alias: [] for alias in ALIASES}
        self.patches = ExitStack()
        # So that a few rows suffice for a reconcile with several batches, of either kind.
        for name, value in {"_RANGES": 1, "_PAGES": 1}.items():
            self.patches.enter_context(mock.patch.object(full, name, value))
        much = mock.patch.object(full, "_differs_much", lambda found: found.differing_rows > 2)
        self.patches.enter_context(much)
        for source in SOURCES:
            self._write(source, "insert all", 0, 0)
            sync(source)

    # Writers

    @rule(source=sources, kind=st.sampled_from(WRITES), number=numbers, other=numbers)
    def write(self, source: Source, kind: str, number: int, other: int) -> None:
        self._write(source, kind, number, other)

    @rule(source=sources, number=numbers, deletes=st.booleans(), prepares=st.booleans())
    def begin_late(self, source: Source, number: int, deletes: bool, prepares: bool) -> None:
        """Write in a transaction that commits later: its number in the log is taken already."""
        user_id = self.world.keys[number]
        busy = [late.client for late in self.late]
        free = [client for client in self.world.spare[source] if client not in busy]
        if user_id in self._locked(source) or not free:
            return
        table, version = TABLES[source], None
        if prepares:
            free[0].tpc_begin(f"{os.getpid()} {source.name} {user_id}")
        free[0].execute(f"DELETE FROM {table.name} WHERE {table.key} = %s", [user_id])
        if not deletes:
            version = self._version(source)
            free[0].execute(table.insert, [version, [user_id]])
        if prepares:
            free[0].tpc_prepare()
        self.late.append(Late(source, free[0], user_id, version, prepares))

    @precondition(lambda self: self.late)
    @rule(choice=choices, commits=st.booleans())
    def end_late(self, choice: int, commits: bool) -> None:
        self._end_late(self.late.pop(choice % len(self.late)), commits=commits)

    # Syncs

    @rule(runner=runners, batches=st.sampled_from([1, 2, 1000]))
    def go_on(self, runner: Choice, batches: int) -> None:
        chosen = self._runner(runner)
        while batches and chosen in self.runners:
            self._go_on(chosen)
            batches -= 1

    @rule(runner=runners, point=st.sampled_from(POINTS), turn=st.integers(1, 2))
    def die(self, runner: Choice, point: Point, turn: int) -> None:
        def death() -> None:
            raise Died("gone")

        self._go_on(self._runner(runner), point, death, turn=turn)

    @rule(runner=runners, point=st.sampled_from(_UNLOCKED), turn=st.integers(1, 2))
    def sleep_while_another_works(self, runner: Choice, point: Point, turn: int) -> None:
        chosen = self._runner(runner)

        def other() -> None:
            self.world.thread.submit(_sync_if_possible, chosen.source).result()

        self._go_on(chosen, point, other, turn=turn)

    @rule(runner=runners, point=st.sampled_from(_UNLOCKED), number=numbers)
    def sleep_while_a_user_is_synced(self, runner: Choice, point: Point, number: int) -> None:
        def other() -> None:
            self.world.thread.submit(_sync_user_if_possible, self.world.keys[number]).result()

        self.touched.update(SOURCES)
        self._go_on(self._runner(runner), point, other)

    @rule(
        runner=runners,
        point=st.sampled_from(POINTS),
        kind=st.sampled_from(ROW_WRITES),
        number=numbers,
        other=numbers,
    )
    def sleep_while_one_writes(
        self, runner: Choice, point: Point, kind: str, number: int, other: int
    ) -> None:
        chosen = self._runner(runner)
        self._go_on(chosen, point, lambda: self._write(chosen.source, kind, number, other))

    @precondition(lambda self: self.late)
    @rule(runner=runners, point=st.sampled_from(POINTS), choice=choices)
    def sleep_while_a_late_one_commits(self, runner: Choice, point: Point, choice: int) -> None:
        chosen = self._runner(runner)
        same = [late for late in self.late if late.source is chosen.source] or self.late
        late = same[choice % len(same)]
        self.late.remove(late)
        try:
            self._go_on(chosen, point, lambda: self._end_late(late, commits=True))
        finally:
            self._end_late(late, commits=True)

    @rule(runner=runners, saved=choices, side=st.sampled_from(list(_AWAY)), data=st.data())
    def sleep_while_a_side_is_restored(
        self, runner: Choice, saved: int, side: str, data: st.DataObject
    ) -> None:
        chosen = self._runner(runner)
        alias = chosen.source.alias if side == "source" else side
        point = data.draw(st.sampled_from(_AWAY[side]))
        self._go_on(chosen, point, lambda: self._restore(alias, saved))

    @precondition(lambda self: self.runners)
    @rule(choice=choices)
    def stop(self, choice: int) -> None:
        runner = self.runners.pop(choice % len(self.runners))
        runner.batches.close()

    @rule(number=numbers)
    def sync_user(self, number: int) -> None:
        self.touched.update(SOURCES)
        sync_user(self.world.keys[number])

    @rule(source=sources)
    def verify(self, source: Source) -> None:
        here, there = rows(source), copies(source)
        differing = {k for k in here.keys() | there.keys() if here.get(k) != there.get(k)}
        assert {k for _, keys in verify(source) for k in keys} == differing

    # Accidents

    @rule(alias=st.sampled_from(ALIASES))
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

    @rule(alias=st.sampled_from(ALIASES), choice=choices)
    def restore(self, alias: str, choice: int) -> None:
        self._restore(alias, choice)

    # What must be true

    @rule()
    def settle(self) -> None:
        """Let everything end; then both sides must be equal."""
        while self.late:
            self._end_late(self.late.pop(), commits=True)
        for runner in self.runners:
            runner.batches.close()
        self.runners.clear()
        for source in SOURCES:
            sync(source)
            assert copies(source) == rows(source)
            assert not list(verify(source))

    @invariant()
    def nothing_is_lost_or_invented(self) -> None:
        for source in self.touched:
            assert lost(source) == set(), f"of {source.name}"
            for user_id, values in copies(source).items():
                assert values[1] in self.versions[source].get(user_id, ()), values
        self.touched.clear()

    def teardown(self) -> None:
        if hasattr(self, "patches"):
            try:
                self.settle()
            finally:
                for late in self.late:
                    late.rollback()
                self.patches.close()

    def _runner(self, runner: Choice) -> Runner:
        """Return a sync that is under way, or begin one."""
        choice, source, whole, batch_size = runner
        if choice < len(self.runners):
            return self.runners[choice]
        batches = sync_source(source, full=whole, batch_size=batch_size)
        self.runners.append(Runner(source, cast(Generator[Any], batches)))
        return self.runners[-1]

    def _write(self, source: Source, kind: str, number: int, other: int) -> None:
        """Change rows, in one statement that commits at once, unless a late one holds them."""
        table, locked = TABLES[source], self._locked(source)
        user_id, new_id = self.world.keys[number], self.world.keys[other]
        free = [user_id for user_id in self.world.keys if user_id not in locked]
        which = f"WHERE {table.key} = ANY(%s)"
        match kind:
            case "store" if user_id in free:
                version = self._version(source, user_id)
                values = f"DO UPDATE SET {table.version} = excluded.{table.version}"
                query = f"{table.insert} ON CONFLICT ({table.key}) {values}"
                self._execute(source, query, [version, [user_id]])
            case "delete" if user_id in free:
                self._execute(source, f"DELETE FROM {table.name} {which}", [[user_id]])
            case "take back" if user_id in free:
                writer = self.world.writers[source.alias]
                with writer.transaction(), writer.transaction(force_rollback=True):
                    writer.execute(f"DELETE FROM {table.name} {which}", [[user_id]])
            case "insert all":
                missing = [user_id for user_id in free if user_id not in self._stored(source)]
                version = self._version(source, *missing)
                self._execute(source, table.insert, [version, missing])
            case "update all":
                version = self._version(source, *free)
                query = f"UPDATE {table.name} SET {table.version} = %s {which}"
                self._execute(source, query, [version, free])
            case "move":  # within the table, without a word in the log
                query = f"UPDATE {table.name} SET {table.idle} = repeat('x', 120) {which}"
                self._execute(source, query, [free])
            case "new id" if {user_id, new_id} <= set(free) and new_id not in self._stored(source):
                version = self._version(source, new_id)
                query = f"UPDATE {table.name} SET {table.key} = %s, {table.version} = %s {which}"
                self._execute(source, query, [new_id, version, [user_id]])
            case "truncate" if not locked:
                self._execute(source, f"TRUNCATE {table.name} CASCADE", [])
            case "rewrite" if not locked:
                self._execute(source, f"VACUUM FULL {table.name}", [])

    def _stored(self, source: Source) -> set[UUID]:
        table = TABLES[source]
        # Not over Django's connection: a sync may have a transaction open there.
        found = self.world.writers[source.alias].execute(f"SELECT {table.key} FROM {table.name}")
        return {row[0] for row in found}

    def _execute(self, source: Source, query: str, parameters: list[Any]) -> None:
        self.world.writers[source.alias].execute(query, parameters or None)
        self.touched.add(source)

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
        self.touched.add(late.source)
        if not commits:
            late.rollback()
            return
        if late.version:
            self.versions[late.source].setdefault(late.key, set()).add(late.version)
        late.commit()

    def _go_on(
        self,
        runner: Runner,
        point: Point = ("", ""),
        action: Callable[[], Any] | None = None,
        *,
        turn: int = 1,
    ) -> None:
        """Let a sync do one batch; or as many as it takes to come to the point."""
        done: list[bool] = [] if action else [True]

        def once() -> None:
            done.append(True)
            if action:
                action()

        self.touched.add(runner.source)
        try:
            with at(point, once, turn=turn):
                next(runner.batches)
                while not done:
                    next(runner.batches)
        except (StopIteration, Overtaken, SyncFailed):
            self.runners.remove(runner)

    def _restore(self, alias: str, choice: int) -> None:
        if not self.saved[alias]:
            return
        self.touched.update(SOURCES)
        tables, position = self.saved[alias][choice % len(self.saved[alias])]
        for late in [late for late in self.late if late.source.alias == alias]:
            self.late.remove(late)
            late.rollback()
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
    with suppress(Overtaken, SyncFailed):
        sync(source, batch_size=2)


def _sync_user_if_possible(user_id: UUID) -> None:
    with suppress(SyncFailed):
        sync_user(user_id)
