"""A test case with a mover in a process of its own, which can be made to crash anywhere."""

import random
from itertools import product
from typing import Any

from sharding import slot_cache
from sharding.models import Move
from sharding.moves import run
from sharding.moves.record import ENDED
from tests.sharding.moves.driver import CRASHED
from tests.sharding.moves.support import LIFETIME, OWN, SLOTS, MovesTestCase, quiet
from tests.support import environment, run_program

__all__ = ["STATES", "VICTIMS", "MoverTestCase"]

STATES = ("planned", "copying", "catching up", "verified", "fenced", "moved", "switched", "owned")
VICTIMS = list(product(STATES, OWN))  # a server that dies in some state


class MoverTestCase(MovesTestCase):
    lifetime = LIFETIME
    mover: Any

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        program = "tests.sharding.moves.driver"
        cls.mover = run_program(program, str(cls.lifetime), env=environment("mover"))
        cls.addClassCleanup(cls.mover.communicate)

    def tell(self, action: str, slots: str, state: str = "never", number: int = 0) -> int:
        """Let the other process work on the move, and die; return its exit code."""
        self.mover.stdin.write(f"{action},{slots},{state},{number}\n")
        self.mover.stdin.flush()
        for line in self.mover.stdout:
            if line.strip().isdecimal():
                return int(line)
        raise AssertionError("The mover's process ended.")

    def move_and_die(self, state: str, number: int) -> None:
        """Let a mover die in a state, and one that goes on from there, or gives up, a bit later."""
        source = slot_cache.renew().owners[SLOTS[0]]
        target = {"shard_1": "shard_2", "shard_2": "shard_1"}[source]
        slots = "+".join(map(str, SLOTS))
        code = self.tell("begin", f"{source}:{target}:{slots}", state, number)
        self.assertIn(code, (0, CRASHED))
        if code == CRASHED:
            early = STATES.index(state) < STATES.index("moved")
            giving_up = early and random.random() < 0.5
            self.tell("abort" if giving_up else "resume", "", state, number + 3)
            if Move.objects.latest("id").state not in ENDED:
                run.run(run.resume(), quiet)

    def assertEnded(self) -> None:
        """Assert that the last move came to an end, and nothing is left of it."""
        slot_cache.clear()
        move = Move.objects.latest("id")
        self.assertIn(move.state, ENDED)
        self.assertNothingLeft(owner=move.target if move.state == "cleaned" else move.source)
