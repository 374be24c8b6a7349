"""What objects ask and write by themselves, without a queryset of the caller's."""

from typing import Any

from django.db.models import F, Subquery, Value
from django.db.models.functions import Coalesce, Concat

from sharding import use_shard
from sharding.errors import AcrossShardsRefused, ShardKeyRequired
from tests.sharding.methods.world import (
    ADA,
    BOB,
    CY,
    EVE,
    FREE_ID,
    WorldTestCase,
    activity_id,
    plain,
)
from users.models import Activity, Profile, User


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


class RefreshTests(WorldTestCase):
    def test_undoes_a_changed_key(self) -> None:
        for user_id in (CY, EVE):
            activity = Activity.objects.get(profile=BOB, kind="login")
            activity.profile_id = user_id
            with self.assert_touches("shard_2", times=1):
                activity.refresh_from_db()
            self.assertEqual(activity.profile_id, BOB)

    def test_of_some_fields_keeps_the_related_object(self) -> None:
        """The key is loaded each time: Django then forgets what a foreign key refers to."""
        activities = Activity.objects.filter(profile=BOB).select_related("profile")
        activity = activities.defer("payload").earliest("occurred_at")
        with self.assert_touches("shard_2", times=1):
            self.assertEqual((activity.payload, activity.profile.display_name), ({}, "Bob"))
        activity.refresh_from_db(fields=["profile"])
        with self.assert_touches("shard_2", times=1):
            self.assertEqual(activity.profile.display_name, "Bob")

    def test_of_a_changed_primary_key_asks_for_that_row(self) -> None:
        profile = Profile.objects.get(pk=BOB)
        profile.pk = CY
        with self.assert_touches("shard_3", times=1):
            profile.refresh_from_db()
        self.assertEqual(profile.display_name, "Cy")


class StoredExpressionTests(WorldTestCase):
    def test_a_subquery_that_may_match_other_users_is_refused(self) -> None:
        """It would see the rows of one shard only."""
        name = Profile.objects.filter(pk=ADA).values("display_name")
        bob = Profile.objects.get(pk=BOB)
        values: list[Any] = [
            Subquery(name),
            name,
            Coalesce(Subquery(name), Value("none")),
            Subquery(User.objects.values("email")[:1]),
        ]
        for value in values:
            bob.bio = value
            for write in (
                bob.save,
                lambda: Profile.objects.bulk_update([bob], ["bio"]),
                lambda: Profile.objects.update_or_create({"bio": value}, pk=BOB),  # noqa: B023
                lambda: Profile.objects.create(pk=FREE_ID, bio=value),  # noqa: B023
                lambda: Profile.objects.bulk_create(
                    [Profile(pk=ADA, bio="later"), Profile(pk=FREE_ID, bio=value)],  # noqa: B023
                    update_conflicts=True,
                    update_fields=["bio"],
                    unique_fields=["pk"],
                ),
            ):
                with self.assertRaises(AcrossShardsRefused):
                    write()
        self.assertEqual({each.bio for each in Profile.objects.across_shards()}, {""})

    def test_what_lies_on_the_same_shard(self) -> None:
        eve = Profile.objects.get(pk=EVE)
        eve.bio = Subquery(Profile.objects.filter(pk=BOB).values("display_name"))
        eve.save()
        self.assertEqual(plain(Profile, "shard_2").get(pk=EVE).bio, "Bob")
        eve.bio = Concat(F("bio"), Value("!"))
        Profile.objects.bulk_update([eve], ["bio"])
        eve.refresh_from_db()
        self.assertEqual(eve.bio, "Bob!")
