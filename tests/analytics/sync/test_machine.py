"""Random histories of writers, syncs and accidents."""

from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.analytics.sync import SOAK
from tests.analytics.sync.machine import SyncMachine
from tests.analytics.sync.support import SyncTestCase
from tests.analytics.sync.world import World

HISTORIES = settings(
    max_examples=5000 if SOAK else 12,
    derandomize=not SOAK,
    stateful_step_count=60 if SOAK else 30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


class MachineTests(SyncTestCase):
    aliases = ("default", "analytics", "shard_1")

    def test_random_histories(self) -> None:
        world = World()
        self.addCleanup(world.close)

        class Machine(SyncMachine):
            pass

        Machine.world = world
        run_state_machine_as_test(Machine, settings=HISTORIES)
