"""Nothing acknowledged is lost, doubled or read too late, while users move and movers die."""

import os
import random

from django.test import override_settings

from sharding.models import Move
from sharding.moves import run
from sharding.moves.record import ENDED
from tests.sharding.moves.history import History, load
from tests.sharding.moves.support import SLOTS, MovesTestCase, quiet, user_id
from tests.sharding.moves.test_kills import STATES
from users.models import Activity, Profile

ROUNDS = 30 if os.environ.get("SOAK") else 1


# Longer than between the tests: these threads share one interpreter with the mover.
@override_settings(SHARDING_MAP_LIFETIME=0.3)
class HistoryTests(MovesTestCase):
    def fill(self) -> None:
        self.keys = [user_id(slot, n) for slot in (*SLOTS, 900) for n in range(3)]
        Profile.objects.bulk_create([Profile(user_id=key, bio="0") for key in self.keys])

    def history(self) -> History:
        return History(self.keys)

    def test_a_mover_that_dies_in_every_state(self) -> None:
        for _ in range(ROUNDS):
            history = self.history()
            end = load(history, may_fail=False)
            try:
                move = self.begin_anywhere()
                while move.state not in ENDED:
                    run._STEPS[Move.State(move.state)](move, quiet)
                    move = Move.objects.get(pk=move.pk)  # as by a new process
            finally:
                end()
            self.assertEqual(history.violations_at_the_end(), [])
            self.assertEqual(history.errors, [])
            self.assertGreater(history.reads, 20)
            self.assertGreater(len(history.acknowledged), len(self.keys) // 2)
            self.assertGreater(history.refused, 0)
            self.assertNothingLeft(owner=move.target)

    def test_servers_that_die(self) -> None:
        for _ in range(ROUNDS):
            history = self.history()
            end = load(history, may_fail=True)
            try:
                move = self.begin_anywhere()
                victim = random.choice(["shard_1", "shard_2"])
                self.end_after(move, random.choice(STATES), victim)
            finally:
                end()
            self.reconnect()
            self.assertEqual(history.violations_at_the_end(), [])
            move.refresh_from_db()
            self.assertNothingLeft(owner=move.target)

    def tearDown(self) -> None:
        Activity.objects.across_shards().delete()
