"""The mover, the source's server or the target's is killed, in every state; the move still ends."""

import os
import random
from itertools import product
from typing import Any

from sharding import slot_cache
from sharding.models import Move
from sharding.moves import run
from sharding.moves.record import ENDED
from tests.sharding.moves.driver import CRASHED
from tests.sharding.moves.support import LIFETIME, SLOTS, MovesTestCase, quiet
from tests.support import environment, run_program

STATES = ("planned", "copying", "catching up", "verified", "fenced", "moved", "switched", "owned")
SOAK = bool(os.environ.get("SOAK"))


class KilledTests(MovesTestCase):
    mover: Any

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        program = "tests.sharding.moves.driver"
        cls.mover = run_program(program, str(LIFETIME), env=environment("mover"))
        cls.addClassCleanup(cls.mover.communicate)

    def tell(self, action: str, slots: str, state: str = "never", number: int = 0) -> int:
        """Let the other process work on the move, and die; return its exit code."""
        self.mover.stdin.write(f"{action},{slots},{state},{number}\n")
        self.mover.stdin.flush()
        for line in self.mover.stdout:
            if line.strip().isdecimal():
                return int(line)
        raise AssertionError("The mover's process ended.")

    def assertEnded(self) -> None:
        """Assert that the last move came to an end, and nothing is lost or left."""
        slot_cache.clear()
        move = Move.objects.latest("id")
        self.assertIn(move.state, ENDED)
        self.assertWhole()
        self.assertNothingLeft(owner=move.target if move.state == "cleaned" else move.source)

    def test_the_mover_at_some_statement_of_every_state(self) -> None:
        # The choice is another one each time; SOAK takes every one.
        numbers = {state: range(12) if SOAK else [random.randrange(12)] for state in STATES}
        route = ["shard_1", "shard_2"]
        slots = "+".join(map(str, SLOTS))
        for state in STATES:
            for number in numbers[state]:
                with self.subTest(state, number=number):
                    code = self.tell("begin", f"{':'.join(route)}:{slots}", state, number)
                    self.assertIn(code, (0, CRASHED))
                    if code == CRASHED:
                        early = STATES.index(state) < STATES.index("moved")
                        giving_up = early and random.random() < 0.5
                        self.tell("abort" if giving_up else "resume", "", state, number + 3)
                        if Move.objects.latest("id").state not in ENDED:
                            run.run(run.resume(), quiet)
                    self.assertEnded()
                    if Move.objects.latest("id").state == "cleaned":
                        route.reverse()

    def test_either_server_in_every_state(self) -> None:
        pairs = list(product(STATES, ("shard_1", "shard_2")))
        for state, victim in pairs if SOAK else random.sample(pairs, 3):
            with self.subTest(state, victim=victim):
                self.end_after(self.begin_anywhere(), state, victim)
                self.assertEnded()
