"""The sync while slots move: nothing vanishes, nothing is lost between two logs."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any
from unittest import mock
from uuid import UUID

from analytics.sync import Source, SyncFailed, batch, statements, verify
from analytics.sync.described import PROFILES
from analytics.sync.errors import Overtaken
from analytics.sync.turn import Turn
from sharding import slot_cache
from sharding.errors import DatabaseUnavailable
from sharding.models import Move
from sharding.moves import handover, run
from tests.analytics.sync.support import clear, copies, execute, in_thread, logged, rows, sync
from tests.sharding.moves.support import SLOTS, MovesTestCase, quiet, user_id
from tests.support import server_down
from users.models import Profile

HERE, THERE = Source(PROFILES, "shard_1"), Source(PROFILES, "shard_2")
STATES = ("planned", "copying", "catching up", "verified", "moved", "switched", "owned", "cleaned")
KEY = user_id(SLOTS[0])
_PLANS = "SELECT user_id, shard, plan FROM analytics_profileanalytics"


class SyncThroughMovesTests(MovesTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.addCleanup(clear, ["analytics"])
        clear(["analytics"])
        for source in (HERE, THERE, Source(PROFILES, "shard_3")):
            sync(source)

    def step(self, move: Move, until: str) -> None:
        while move.state != until:
            run._STEPS[Move.State(move.state)](move, quiet)

    def copied(self) -> dict[UUID, tuple[str, str]]:
        """The copies: whose -> the shard and the plan that they name."""
        return {key: (shard, plan) for key, shard, plan in execute("analytics", _PLANS)}

    def assertAllCopied(self) -> None:
        self.assertEqual(sorted(self.copied()), sorted(self.keys))

    def test_nothing_vanishes_in_any_state_whoever_syncs(self) -> None:
        move = self.begin()
        for number, state in enumerate(STATES):
            self.step(move, state)
            if number % 2:
                slot_cache.renew()
            order = (HERE, THERE) if number % 2 else (THERE, HERE)
            for source in order:
                sync(source, full=number % 3 == 0)
                self.assertAllCopied()
        for source in (HERE, THERE):
            sync(source)
            self.assertEqual(list(verify(source)), [])
        moved = {shard for key, (shard, _) in self.copied().items() if key == KEY}
        self.assertEqual(moved, {"shard_2"})

    def test_changes_that_were_not_synced_before_the_move_arrive(self) -> None:
        Profile.objects.filter(user_id=KEY).update(plan="pro")
        Profile.objects.filter(user_id=user_id(SLOTS[1])).delete()
        self.keys.remove(user_id(SLOTS[1]))
        execute("shard_2", "DELETE FROM users_profilechange")
        self.move()
        self.assertEqual(logged(THERE), [], "writers waited for more than they had to")
        for source in (HERE, THERE):
            sync(source)
        self.assertEqual(self.copied()[KEY], ("shard_2", "pro"))
        self.assertAllCopied()

    def test_what_the_shard_refuses_is_said_of_the_shard(self) -> None:
        self.move()
        refused = mock.patch.object(statements, "log_rows", lambda source: "SELECT 1 / 0")
        with refused, self.assertRaisesRegex(SyncFailed, "shard_2 stopped the sync: division"):
            sync(THERE)
        sync(THERE)
        self.assertAllCopied()

    def test_two_moves_between_two_syncs(self) -> None:
        for slots in (SLOTS[:1], SLOTS[1:]):
            Profile.objects.filter(user_id=user_id(slots[0])).delete()
            self.keys.remove(user_id(slots[0]))
            self.move(slots)
        sync(THERE)
        self.assertAllCopied()
        self.assertEqual(sorted(copies(THERE)), sorted(rows(THERE)))

    def test_a_sync_behind_the_fence_of_a_move_that_is_given_up(self) -> None:
        Profile.objects.filter(user_id=KEY).update(plan="pro")
        move = self.begin()
        self.step(move, "fenced")
        handover.hold(move)
        sync(HERE)
        run.abort(move, quiet)
        sync(HERE)
        self.assertEqual(self.copied()[KEY], ("shard_1", "pro"))

    def test_a_change_after_the_move_and_a_delete(self) -> None:
        self.move()
        Profile.objects.filter(user_id=KEY).update(plan="team")
        Profile.objects.filter(user_id=user_id(SLOTS[1])).delete()
        sync(THERE)
        self.assertEqual(self.copied()[KEY], ("shard_2", "team"))
        self.assertNotIn(user_id(SLOTS[1]), self.copied())
        sync(HERE)
        self.assertEqual(self.copied()[KEY], ("shard_2", "team"))

    def test_a_delete_after_the_move_and_a_reconcile(self) -> None:
        self.move()
        Profile.objects.filter(user_id=user_id(SLOTS[1])).delete()
        execute("shard_2", "DELETE FROM users_profilechange")
        sync(THERE, full=True)
        self.assertNotIn(user_id(SLOTS[1]), self.copied())
        self.assertEqual(self.copied()[KEY][0], "shard_2")

    def test_a_batch_of_the_former_owner_in_flight_fails(self) -> None:
        self.assertBatchInFlightFails(nullcontext())

    def test_a_batch_in_flight_of_a_former_owner_that_is_down(self) -> None:
        self.assertBatchInFlightFails(server_down("shard_1"))

    def assertBatchInFlightFails(self, meanwhile: AbstractContextManager[None]) -> None:
        """The move, and a sync of the new owner, come between its reading and its writing."""
        Profile.objects.filter(user_id=KEY).update(plan="pro")
        turn = batch.begin(HERE)
        take_over = Turn.take_over

        def late(self: Turn, *args: Any) -> None:
            with mock.patch.object(Turn, "take_over", take_over):
                in_thread(move_and_sync)
            take_over(self, *args)

        def move_and_sync() -> None:
            self.move()
            Profile.objects.filter(user_id=KEY).update(plan="team")
            with meanwhile:
                sync(THERE)

        with mock.patch.object(Turn, "take_over", late), self.assertRaises(Overtaken):
            batch.sync_log(turn, 100)
        self.assertEqual(self.copied()[KEY], ("shard_2", "team"))
        sync(HERE)
        self.assertEqual(self.copied()[KEY], ("shard_2", "team"))

    def test_slots_that_arrive_after_a_batch_began(self) -> None:
        """It has made no batch of the former owner fail, so it must not speak for those slots."""
        turn = batch.begin(THERE)
        self.move()
        with self.assertRaisesRegex(Overtaken, "Slots arrived at shard_2 just now"):
            batch.sync_log(turn, 100)
        self.assertEqual(self.copied()[KEY][0], "shard_1")
        sync(THERE)
        self.assertEqual(self.copied()[KEY][0], "shard_2")

    def test_an_arrival_is_kept_until_the_former_owner_was_overtaken(self) -> None:
        self.move()
        with server_down("analytics"), self.assertRaises(DatabaseUnavailable):
            batch.begin(THERE)
        arrivals = "SELECT shard FROM analytics_syncarrival"
        self.assertEqual(execute("shard_2", arrivals), [("shard_1",)])
        batch.begin(THERE)
        self.assertEqual(execute("shard_2", arrivals), [])
