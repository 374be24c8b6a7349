"""Nothing acknowledged is lost, doubled or read too late, while users move, and movers and servers
die.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager

from django.db import connections
from django.test import override_settings

from sharding.models import Move
from sharding.moves import run
from sharding.moves.record import ENDED
from tests.outage import pool_options
from tests.sharding.moves.history import History, load
from tests.sharding.moves.mover import STATES, VICTIMS, MoverTestCase
from tests.sharding.moves.soak import rounds
from tests.sharding.moves.support import SLOTS, quiet, user_id
from users.models import Activity, Profile


# Longer than between the tests: these threads share one interpreter with the mover.
@override_settings(SHARDING_MAP_LIFETIME=1.0)
class HistoryTests(MoverTestCase):
    lifetime = 1.0

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        # One for each thread that reads and writes, and the mover's.
        cls.enterClassContext(pool_options(*connections, max_size=10))

    def fill(self) -> None:
        self.keys = [user_id(slot, n) for slot in (*SLOTS, 900) for n in range(3)]
        Profile.objects.bulk_create([Profile(user_id=key, bio="0") for key in self.keys])

    @contextmanager
    def hammered(self, *, may_fail: bool) -> Iterator[History]:
        """Write and read during the block; and assert afterwards that all is as acknowledged."""
        history = History(self.keys)
        end = load(history, may_fail=may_fail)
        try:
            yield history
        finally:
            end()
        self.reconnect()
        self.assertEqual(history.violations_at_the_end(), [])
        self.assertEqual(history.errors, [])

    def test_a_mover_that_stops_in_every_state(self) -> None:
        for _ in rounds([None]):
            with self.hammered(may_fail=False) as history:
                move = self.begin_anywhere()
                while move.state not in ENDED:
                    run._STEPS[Move.State(move.state)](move, quiet)
                    move = Move.objects.get(pk=move.pk)  # as by a new process
            self.assertGreater(history.reads, 20)
            self.assertGreater(len(history.acknowledged), len(self.keys) // 2)
            self.assertGreater(history.refused, 0)
            self.assertEnded()

    def test_a_mover_that_is_killed(self) -> None:
        """Whoever goes on comes at once: nobody notices more than a wait."""
        for state in rounds([*STATES]):
            with self.subTest(state), self.hammered(may_fail=False):
                self.move_and_die(state, random.randrange(12))
            self.assertEnded()

    def test_servers_that_die(self) -> None:
        for state, victim in rounds(VICTIMS):
            with self.subTest(state, victim=victim), self.hammered(may_fail=True):
                self.end_after(self.begin_anywhere(), state, victim)
            self.assertEnded()

    def tearDown(self) -> None:
        Activity.objects.across_shards().delete()
