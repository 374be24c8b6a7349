"""From the fence to the new owner: who is waited for, and what every process knows by then."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from unittest import mock

import psycopg
from django.test import SimpleTestCase, override_settings

from sharding import fence
from sharding.errors import MoveFailed
from sharding.map_source import MapSource
from sharding.models import Move
from sharding.moves import cleaning, copying, handover, record, run, servers
from sharding.moves.servers import rows
from tests.sharding.moves.support import SLOTS, MovesTestCase, owners_of, quiet, user_id
from users.models import Profile

KEY, OTHER = user_id(SLOTS[0]), user_id(SLOTS[1])
UPDATE = "UPDATE users_profile SET bio = %s WHERE user_id = %s"


class LifetimeTests(SimpleTestCase):
    def waited(self, **times: Any) -> float:
        with (
            mock.patch.object(servers, "monotonic", return_value=100.0),
            mock.patch.object(servers, "sleep") as sleep,
            override_settings(SHARDING_MAP_LIFETIME=5.0),
        ):
            servers.one_lifetime(**times)
        return round(sleep.call_args.args[0] - servers._MARGIN, 3)

    def test_of_a_map_that_says_nothing(self) -> None:
        self.assertEqual(self.waited(since=100.0), 5)
        self.assertEqual(self.waited(since=97.0), 2)

    def test_of_one_that_says_that_slots_change_hands(self) -> None:
        self.assertEqual(self.waited(since=100.0, handing_over_since=50.0), 1)
        # Some still have one from before it said so.
        self.assertEqual(self.waited(since=100.0, handing_over_since=98.0), 3)
        self.assertEqual(self.waited(since=100.0, handing_over_since=100.0), 5)


class HandoverTests(MovesTestCase):
    def step(self, move: Move, until: str) -> None:
        while move.state != until:
            run._STEPS[Move.State(move.state)](move, quiet)

    @contextmanager
    def psql(self, alias: str) -> Iterator["psycopg.Connection[Any]"]:
        with psycopg.connect(self.servers.url(alias)) as client:
            yield client

    def bio(self, key: Any) -> str:
        return Profile.objects.get(user_id=key).bio

    def test_nothing_is_copied_before_every_map_knows(self) -> None:
        waits = []

        def look(*, since: float) -> None:
            waits.append(rows("shard_2", "SELECT subname FROM pg_subscription"))
            for alias, state in (("shard_1", "owned"), ("shard_2", "importing")):
                query = "SELECT DISTINCT state FROM sharding_slotowner WHERE move IS NOT NULL"
                self.assertEqual(rows(alias, query), [(state,)])

        move = self.begin()
        with mock.patch.object(copying, "one_lifetime", look):
            self.step(move, "copying")
        self.assertEqual(waits, [[]])
        run.run(move, quiet)

    def test_nobody_writes_before_every_map_knows(self) -> None:
        """Also who cannot reach the primary, and asks the shards, is sent to the target by then."""
        waits = []

        def look(**times: float | None) -> None:
            waits.append([owners_of(slot) for slot in SLOTS])
            with self.psql("shard_2") as early, self.assertRaises(psycopg.DatabaseError) as caught:
                early.execute(UPDATE, ["early", KEY])
            self.assertEqual(caught.exception.sqlstate, "SH001")
            asked = MapSource()
            self.addCleanup(asked.close)
            found = asked._from_shards(None)
            assert found
            self.assertEqual({found.owners[slot] for slot in SLOTS}, {"shard_2"})
            self.assertEqual(found.hidden, {"shard_1": frozenset(SLOTS)})
            self.assertTrue(found.handing_over)
            self.assertEqual(Move.objects.get(pk=move.pk).state, "switched")

        move = self.begin()
        self.step(move, "switched")
        with mock.patch.object(handover, "one_lifetime", look):
            run.run(move, quiet)
        self.assertEqual(waits, [[[]] * len(SLOTS)])

    def test_the_map_as_the_shards_know_it(self) -> None:
        move = self.begin()
        asked = MapSource()
        self.addCleanup(asked.close)
        for state in ("copying", "catching up", "fenced", "moved", "switched", "owned", "cleaned"):
            self.step(move, state)
            with self.subTest(state):
                found = asked._from_shards(None)
                assert found
                late = state in ("owned", "cleaned")
                owner, other = ("shard_2", "shard_1") if late else ("shard_1", "shard_2")
                self.assertEqual({found.owners[slot] for slot in SLOTS}, {owner})
                hidden = {} if state == "cleaned" else {other: frozenset(SLOTS)}
                self.assertEqual(found.hidden, hidden)
                self.assertEqual(found.handing_over, state != "cleaned")

    def test_an_open_transaction_is_waited_for_or_the_writers_are_let_through(self) -> None:
        move = self.begin()
        self.step(move, "fenced")
        with (
            self.psql("shard_1") as busy,
            mock.patch.object(handover, "_WAIT", 0.1),
            mock.patch.object(handover, "_FOREVER", 1.0),
            mock.patch.object(run, "_ATTEMPTS", 1),
        ):
            busy.execute(UPDATE, ["x", user_id(9)])
            pid = busy.info.backend_pid
            with self.assertRaisesRegex(MoveFailed, f"did not end in 0.1 s.*{pid}"):
                run.run(move, quiet)
            with self.settings(SHARDING_MOVE_PATIENCE=0):
                Profile.objects.filter(user_id=KEY).update(bio="let through")
        self.assertEqual(Move.objects.get(pk=move.pk).state, "catching up")
        run.run(run.resume(), quiet)
        self.assertEqual(self.bio(KEY), "let through")
        self.assertNothingLeft(owner="shard_2")

    def test_what_an_expired_fence_let_through_arrives(self) -> None:
        """The mover sleeps through its fence; one write is committed, another one is under way."""
        move = self.begin()
        self.step(move, "fenced")
        with self.psql("shard_1") as late, self.psql("shard_2") as slow:
            with mock.patch.object(handover, "_HOLD", timedelta(0)):
                handover.hold(move)
            late.execute(UPDATE, ["late", KEY])
            Profile.objects.filter(user_id=OTHER).update(bio="slipped in")
            slow.execute("LOCK TABLE users_profile IN SHARE MODE")  # the target applies nothing
            handover.give_up(move)
            record.advance(move, Move.State.MOVED)
            original_writers, original_drained = fence.writers, handover.drained

            def writers(cursor: Any) -> Any:
                found = original_writers(cursor)
                late.commit()  # once it was seen
                return found

            def drained(*args: Any, **options: Any) -> None:
                slow.rollback()
                original_drained(*args, **options)

            with (
                mock.patch.object(fence, "writers", writers),
                mock.patch.object(handover, "drained", drained),
            ):
                self.step(move, "switched")
            with mock.patch.object(cleaning, "_OLD", 1.0):
                run.run(move, quiet)
        self.assertEqual((self.bio(KEY), self.bio(OTHER)), ("late", "slipped in"))
        self.assertWhole()
        self.assertNothingLeft(owner="shard_2")

    def lose(self, move: Move) -> None:
        """Let the source give the move's replication slot up, as one that kept too much."""
        name = record.name(move)
        self.execute("shard_1", "ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'")
        self.execute("shard_1", "SELECT pg_reload_conf()")
        lost = f"SELECT invalidation_reason FROM pg_replication_slots WHERE slot_name = '{name}'"
        while not servers.value("shard_1", lost):
            self.execute("shard_1", "SELECT pg_logical_emit_message(false, '', '')")
            self.execute("shard_1", "SELECT pg_switch_wal()")
            self.execute("shard_1", "CHECKPOINT")
        self.execute("shard_1", "ALTER SYSTEM RESET max_slot_wal_keep_size")
        self.execute("shard_1", "SELECT pg_reload_conf()")

    def execute(self, alias: str, statement: str) -> None:
        with psycopg.connect(self.servers.url(alias), autocommit=True) as client:
            client.execute(statement)

    def test_a_replication_slot_that_was_given_up(self) -> None:
        move = self.begin()
        self.step(move, "catching up")
        self.execute("shard_2", f"ALTER SUBSCRIPTION {record.name(move)} DISABLE")
        self.lose(move)
        with (
            mock.patch.object(copying, "_CATCH_UP_TIMEOUT", 30.0),
            self.assertRaisesRegex(MoveFailed, "was given up by shard_1.*Abort the move"),
        ):
            run.run(move, quiet)
        run.abort(run.resume(), quiet)
        self.assertWhole()
        self.assertNothingLeft(owner="shard_1")

    def test_one_that_was_given_up_or_dropped_after_the_point_of_no_return(self) -> None:
        for lose in (self.lose, cleaning.drop_replication):
            with self.subTest(lose), mock.patch.object(handover, "_FOREVER", 30.0):
                move = self.begin()
                self.step(move, "moved")
                self.execute("shard_2", f"ALTER SUBSCRIPTION {record.name(move)} DISABLE")
                lose(move)
                run.run(run.resume(), quiet)
                self.assertWhole()
                self.assertNothingLeft(owner="shard_2")
                run.run(run.begin("shard_2", "shard_1", SLOTS), quiet)

    def test_old_rows_stay_for_a_transaction_from_before_the_switch(self) -> None:
        move = self.begin()
        with self.psql("shard_1") as reader:
            reader.execute("SELECT 1")
            with (
                mock.patch.object(cleaning, "_OLD", 0.1),
                self.assertRaisesRegex(MoveFailed, f"before the switch.*{reader.info.backend_pid}"),
            ):
                run.run(move, quiet)
            count = "SELECT count(*) FROM users_profile WHERE user_id = %s"
            self.assertEqual(reader.execute(count, [KEY]).fetchone(), (1,))
        self.assertEqual(Move.objects.get(pk=move.pk).state, "owned")
        self.assertWhole()
        run.run(run.resume(), quiet)
        self.assertNothingLeft(owner="shard_2")
