"""What objects ask and write by themselves, without a queryset of the caller's."""

from sharding import use_shard
from sharding.errors import ShardKeyRequired
from tests.sharding.methods.world import (
    ADA,
    BOB,
    EVE,
    WorldTestCase,
    activity_id,
)
from users.models import Activity, Profile


class NextRowTests(WorldTestCase):
    """Django looks for it on the shard that the object came from: the next one may be elsewhere."""

    def test_without_a_key(self) -> None:
        bob = Profile.objects.get(pk=BOB)
        for find in (bob.get_next_by_created_at, bob.get_previous_by_created_at):
            with self.assert_touches(), self.assertRaises(ShardKeyRequired):
                find()
        with use_shard("shard_2"):
            self.assertEqual(bob.get_next_by_created_at().pk, EVE)
        self.assertEqual(bob._state.db, "shard_2")

    def test_with_a_key(self) -> None:
        first = Activity.objects.get(pk=activity_id(ADA, 0), profile=ADA)
        with self.assert_touches("shard_1", times=2):
            second = first.get_next_by_occurred_at(profile=ADA)
            self.assertEqual(second.get_previous_by_occurred_at(profile=ADA), first)
        self.assertEqual(second.pk, activity_id(ADA, 1))
