"""What the tests of moves share: servers of their own, users to move, and what must hold after."""

from collections.abc import Collection
from typing import Any, ClassVar
from uuid import UUID

from django.db import DatabaseError, connections
from django.test import SimpleTestCase, override_settings

from config.embedded import Cluster as Servers
from sharding import conf, ownership, slot_cache
from sharding.errors import MoveFailed
from sharding.models import Cluster, Identity, Move
from sharding.moves import leftovers, run
from sharding.moves.copying import Progress
from sharding.moves.record import ENDED
from tests.outage import disconnect, migrated_servers
from users.models import Activity, Profile

__all__ = ["LIFETIME", "OWN", "SLOTS", "MovesTestCase", "owners_of", "quiet", "user_id"]

OWN = ("default", "shard_1", "shard_2")
SLOTS = range(10, 14)  # of shard_1
LIFETIME = 0.05  # seconds, of a map


def user_id(slot: int, number: int = 0) -> UUID:
    """The id of a user of a slot; another one for each number."""
    return UUID(f"{slot:08x}-0000-4000-8000-{number:012x}")


def quiet(progress: Progress) -> None:
    """Report nothing."""


def owners_of(slot: int) -> list[str]:
    """The shards that would take a write to a slot, by their own account."""
    found = []
    for alias in conf.shards():
        with connections[alias].cursor() as cursor:
            owner = ownership.read(cursor).get(slot)
        if owner and owner.state == "owned":
            found.append(alias)
    return found


class MovesTestCase(SimpleTestCase):
    """The primary, shard_1 and shard_2 on servers of their own. Moves go between these two."""

    databases = "__all__"
    servers: ClassVar[Servers]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.servers = cls.enterClassContext(migrated_servers(*OWN))
        cls.enterClassContext(override_settings(SHARDING_MAP_LIFETIME=LIFETIME))
        # shard_3 joins them for a while.
        before = cls.belong(Cluster.objects.get().pk)
        cls.addClassCleanup(cls.belong, before)

    @staticmethod
    def belong(cluster: UUID) -> UUID:
        """Let shard_3 belong to another installation; return the one before."""
        others = Identity.objects.using("shard_3")
        before = others.get().cluster
        others.update(cluster=cluster)
        return before

    def setUp(self) -> None:
        super().setUp()
        self.servers.start()
        self.reconnect()
        self.addCleanup(self._bring_home)
        self.fill()

    def fill(self) -> None:
        """Store two users with two activities each in the slots that move, and some beside."""
        self.keys = [user_id(slot, n) for slot in (*SLOTS, 9, 14, 500, 900) for n in range(2)]
        Profile.objects.bulk_create([Profile(user_id=key) for key in self.keys])
        Activity.objects.bulk_create(
            [Activity(profile_id=key, kind=str(n)) for key in self.keys for n in range(2)]
        )

    def _bring_home(self) -> None:
        """Leave the shards as they were, whatever the test did."""
        self.servers.start()
        self.reconnect()
        if move := Move.objects.exclude(state__in=ENDED).first():
            run.run(move, quiet)
        for model in (Activity, Profile):
            model.objects.across_shards().delete()
        home = slot_cache.renew()
        for source, target in (("shard_2", "shard_1"), ("shard_1", "shard_2")):
            low, high = (0, 334) if target == "shard_1" else (334, 667)
            if away := [slot for slot in home.slots(source) if low <= slot < high]:
                run.run(run.begin(source, target, away), quiet)

    def begin(self, slots: Collection[int] = SLOTS) -> Move:
        return run.begin("shard_1", "shard_2", slots)

    def move(self, slots: Collection[int] = SLOTS, report: Any = quiet) -> Move:
        move = self.begin(slots)
        run.run(move, report)
        return move

    def run_into(self, move: Move, state: str, victim: str) -> None:
        """Run a move during which a server dies, in some state."""
        killed: list[str] = []

        def kill(progress: Progress) -> None:
            if progress.text == state and not killed:
                killed.append(victim)
                self.servers.kill(victim)

        try:
            run.run(move, kill)
        except (DatabaseError, MoveFailed):
            self.assertTrue(killed)

    def end_after(self, move: Move, state: str, victim: str) -> None:
        """Run a move into the death of a server, and to its end when that is back."""
        self.run_into(move, state, victim)
        self.servers.start(victim)
        self.reconnect()
        if Move.objects.get(pk=move.pk).state not in ENDED:
            run.run(run.resume(), quiet)

    def begin_anywhere(self) -> Move:
        """Begin to move the slots from the shard that has them to the other one."""
        source = slot_cache.renew().owners[SLOTS[0]]
        return run.begin(source, {"shard_1": "shard_2", "shard_2": "shard_1"}[source], SLOTS)

    def reconnect(self) -> None:
        for alias in OWN:
            disconnect(alias)
        slot_cache.clear()

    def assertWhole(self) -> None:
        """Assert that every row can be read, by its key and by a fan-out, once."""
        self.assertEqual(self.stored(), sorted(self.keys))
        profiles = Profile.objects.across_shards()
        self.assertEqual(profiles.count(), len(self.keys))
        self.assertEqual(Activity.objects.across_shards().count(), 2 * len(self.keys))
        for key in self.keys:
            self.assertEqual(Activity.objects.filter(profile=key).count(), 2)

    def stored(self) -> list[UUID]:
        return sorted(Profile.objects.across_shards().values_list("pk", flat=True))

    def assertNothingLeft(self, *, owner: str, slots: Collection[int] = SLOTS) -> None:
        """Assert that the slots are this shard's alone, and nothing of any move is anywhere."""
        self.assertEqual({slot_cache.renew().owners[slot] for slot in slots}, {owner})
        self.assertEqual(dict(slot_cache.current().hidden), {})
        for slot in slots:
            self.assertEqual(owners_of(slot), [owner])
        for alias in OWN[1:]:
            self.assertEqual(leftovers.find(alias), [])
            self.assertEqual(leftovers.foreign_rows(alias), {})
            with connections[alias].cursor() as cursor:
                self.assertTrue(ownership.guard_agrees(cursor))
                states = {(o.state, o.move) for o in ownership.read(cursor).values()}
            self.assertEqual(states, {("owned", None)})
