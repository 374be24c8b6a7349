"""Ways to write the sync that look right and lose rows: the tests must see each of them."""

import unittest
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any
from unittest import mock

import psycopg
from django.db import connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.utils import CursorWrapper
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from psycopg.sql import SQL, Identifier

from analytics.sync import Source, batch, run
from analytics.sync.turn import Turn
from tests.analytics.sync import SOAK
from tests.analytics.sync.machine import SyncMachine
from tests.analytics.sync.steps import at
from tests.analytics.sync.support import (
    SyncTestCase,
    add_users,
    connect,
    copies,
    execute,
    key,
    sync,
)
from tests.analytics.sync.world import World

A, B = key(1), key(2)
SET_NAME = "UPDATE users_user SET name = %s WHERE id = %s"
Mutation = Callable[[], AbstractContextManager[Any]]
Client = psycopg.Connection[Any]


@contextmanager
def deleting_the_log_by_range() -> Iterator[None]:
    finish = Turn.finish

    def mutated(turn: Turn, here: CursorWrapper, entries: list[int]) -> None:
        finish(turn, here, [])
        delete = SQL("DELETE FROM {} WHERE id <= %s").format(turn.source.log)
        here.execute(delete, [max(entries, default=0)])

    with mock.patch.object(Turn, "finish", mutated):
        yield


@contextmanager
def claiming_before_the_read() -> Iterator[None]:
    sync_log, claim = batch.sync_log, Turn.claim

    def mutated(turn: Turn, limit: int) -> Any:
        alias = turn.source.alias
        with transaction.atomic(alias), connections[alias].cursor() as here:
            claim(turn, here)
        with mock.patch.object(Turn, "claim", lambda turn, here: None):
            return sync_log(turn, limit)

    with mock.patch.object(run, "sync_log", mutated):
        yield


@contextmanager
def deleting_the_log_before_analytics_commits() -> Iterator[None]:
    oldest = batch._oldest

    def mutated(here: CursorWrapper, source: Source, limit: int) -> Any:
        entries = oldest(here, source, limit)
        delete = SQL("DELETE FROM {} WHERE id = ANY(%s)").format(source.log)
        here.execute(delete, [[number for number, _ in entries]])
        return entries

    with mock.patch.object(batch, "_oldest", mutated):
        yield


class MutationTests(SyncTestCase):
    """Each scenario comes out right, and wrong under the mutation that it is for."""

    aliases = ("default", "analytics")

    def setUp(self) -> None:
        super().setUp()
        add_users([A, B])
        sync()

    def assertSeen(self, mutation: Mutation, scenario: Callable[[], None]) -> None:
        """Assert that nothing but the mutation turns the scenario red."""
        scenario()
        self.setUp()
        with self.assertRaises(self.failureException), mutation():
            scenario()

    def test_deleting_the_log_by_range(self) -> None:
        self.assertSeen(deleting_the_log_by_range, self.late_commit)

    def test_claiming_before_the_read(self) -> None:
        self.assertSeen(claiming_before_the_read, self.failover)

    def test_deleting_the_log_before_analytics_commits(self) -> None:
        self.assertSeen(deleting_the_log_before_analytics_commits, self.death)

    def late_commit(self) -> None:
        """An older entry of the log commits while a younger one is being applied."""
        with connect("default") as late:
            late.execute(SET_NAME, ["late", A])
            execute("default", SET_NAME, ["younger", B])
            with at(("after", "take_over"), late.commit):
                sync()
        self.assertHeals()
        self.assertEqual(copies()[A][1], "late")

    def death(self) -> None:
        """The sync dies while it writes to analytics."""

        class Died(Exception):
            pass

        def die() -> None:
            raise Died

        execute("default", SET_NAME, ["new", A])
        with at(("after", "take_over"), die), self.assertRaises(Died):
            sync()
        self.assertHeals()
        self.assertEqual(copies()[A][1], "new")

    def failover(self) -> None:
        """The primary fails over to a standby that has the claim and nothing younger."""
        execute("default", SET_NAME, ["new", A])
        with connect("default", autocommit=True) as client, ExitStack() as stack:
            standby = _Standby(client)
            stack.enter_context(standby.following())
            oldest = batch._oldest

            def written_just_before(*args: Any) -> Any:
                client.execute(SET_NAME, ["read", B])
                return oldest(*args)

            stack.enter_context(mock.patch.object(batch, "_oldest", written_just_before))
            sync()
            standby.promote()
        self.assertHeals()


class _Standby:
    """What the primary held when a claim was first committed there."""

    TABLES = ("users_user", "users_userchange", "analytics_syncposition")

    def __init__(self, client: Client) -> None:
        self.client = client
        self.before = self._claimed()
        self.rows: dict[str, list[Any]] = {}

    @contextmanager
    def following(self) -> Iterator[None]:
        commit = BaseDatabaseWrapper.commit

        def followed(connection: BaseDatabaseWrapper) -> None:
            commit(connection)
            if not self.rows and self._claimed() != self.before:
                self.rows = {table: self._copy(table) for table in self.TABLES}

        with mock.patch.object(BaseDatabaseWrapper, "commit", followed):
            yield

    def promote(self) -> None:
        with self.client.transaction():
            self.client.execute("SET LOCAL session_replication_role = replica")  # no triggers
            for name, found in self.rows.items():
                table = Identifier(name)
                self.client.execute(SQL("DELETE FROM {}").format(table))
                query = SQL("INSERT INTO {0} SELECT * FROM jsonb_populate_record(NULL::{0}, %s)")
                for (row,) in found:
                    self.client.execute(query.format(table), [row])

    def _claimed(self) -> Any:
        query = "SELECT claimed FROM analytics_syncposition WHERE source = 'users'"
        return self.client.execute(query).fetchone()

    def _copy(self, table: str) -> list[Any]:
        query = SQL("SELECT to_jsonb(t)::text FROM {} t").format(Identifier(table))
        return self.client.execute(query).fetchall()


@unittest.skipUnless(SOAK, "takes minutes")
class MutatedMachineTests(SyncTestCase):
    """The random histories find what they can: a claim that comes early needs a failover."""

    aliases = ("default", "analytics", "shard_1")

    def test_each_is_found(self) -> None:
        world = World()
        self.addCleanup(world.close)
        SyncMachine.world = world
        enough = settings(
            max_examples=2000,
            stateful_step_count=40,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        for mutation in (deleting_the_log_by_range, deleting_the_log_before_analytics_commits):
            with (
                self.subTest(mutation.__name__),
                self.assertRaises(AssertionError),
                mutation(),
            ):
                run_state_machine_as_test(SyncMachine, settings=enough)
