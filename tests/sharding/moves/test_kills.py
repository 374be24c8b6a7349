"""The mover, or a server, is killed in every state; the move still ends."""

import random

from tests.sharding.moves.mover import STATES, VICTIMS, MoverTestCase
from tests.sharding.moves.soak import SOAK


class KilledTests(MoverTestCase):
    def test_the_mover_at_some_statement_of_every_state(self) -> None:
        # The choice is another one each time; SOAK takes every one.
        for state in STATES:
            for number in range(12) if SOAK else [random.randrange(12)]:
                with self.subTest(state, number=number):
                    self.move_and_die(state, number)
                    self.assertEnded()
                    self.assertWhole()

    def test_a_server_in_every_state(self) -> None:
        """The source's, the target's or the primary's."""
        for state, victim in VICTIMS if SOAK else random.sample(VICTIMS, 4):
            with self.subTest(state, victim=victim):
                self.end_after(self.begin_anywhere(), state, victim)
                self.assertEnded()
                self.assertWhole()
