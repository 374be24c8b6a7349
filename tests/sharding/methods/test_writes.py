"""Writes: each row on the shard that owns its key, or an error and nothing written."""

from contextlib import ExitStack
from decimal import Decimal

from django.db import DataError, IntegrityError, transaction
from django.db.models import F

from sharding import use_shard
from sharding.errors import (
    AcrossShardsRefused,
    InvalidShardKey,
    ShardKeyChanged,
    ShardKeyRequired,
    WrongShard,
)
from tests.sharding.methods.world import (
    ADA,
    BOB,
    CY,
    DEE,
    EVE,
    FREE_ID,
    OWNERS,
    SHARDS,
    WorldTestCase,
    activity_id,
    counts,
    plain,
)
from users.models import Activity, Profile


class CreateTests(WorldTestCase):
    def test_by_the_key_in_its_arguments(self) -> None:
        for make in (
            lambda: Profile.objects.create(user_id=FREE_ID),
            lambda: Profile.objects.create(pk=FREE_ID),
            lambda: Profile.objects.create(user_id=str(FREE_ID)),
            lambda: Profile.objects.across_shards().create(user_id=FREE_ID),
            lambda: Profile.objects.using("shard_2").create(user_id=FREE_ID),
            lambda: Profile.objects.filter(plan="pro").create(user_id=FREE_ID),
        ):
            with self.assert_touches("shard_2"), transaction.atomic(using="shard_2"):
                made = make()
                self.assertEqual(made._state.db, "shard_2")
                self.assertEqual(plain(Profile, "shard_2").filter(pk=FREE_ID).count(), 1)
                transaction.set_rollback(True, using="shard_2")

    def test_by_the_foreign_key_in_its_arguments(self) -> None:
        for keys in ({"profile": Profile.objects.get(pk=BOB)}, {"profile_id": str(BOB)}):
            with self.assert_touches("shard_2", times=1):
                Activity.objects.create(kind="new", **keys)
        self.assertEqual(counts(Activity), {"shard_1": 5, "shard_2": 4, "shard_3": 1})

    def test_a_key_goes_before_use_shard(self) -> None:
        with use_shard("shard_1"), self.assert_touches("shard_2"):
            Profile.objects.create(user_id=FREE_ID)

    def test_without_a_key(self) -> None:
        with self.assert_touches(), self.assertRaises(ShardKeyRequired):
            Activity.objects.create(kind="new")
        with use_shard("shard_1"), self.assert_touches(), self.assertRaises(ShardKeyRequired):
            Activity.objects.create(kind="new")

    def test_on_another_shard(self) -> None:
        message = "belongs on shard_2 and was to be saved on shard_1"
        with self.assert_touches(), self.assertRaisesMessage(WrongShard, message):
            Profile.objects.using("shard_1").create(user_id=FREE_ID)

    def test_a_key_that_is_none(self) -> None:
        with self.assert_touches(), self.assertRaises(InvalidShardKey):
            Profile.objects.create(user_id="nobody")

    def test_a_duplicate_is_djangos_error(self) -> None:
        with self.assertRaises(IntegrityError), transaction.atomic(using="shard_2"):
            Profile.objects.create(user_id=BOB)


class SaveTests(WorldTestCase):
    def test_a_new_object(self) -> None:
        profile = Profile(user_id=FREE_ID)
        with self.assert_touches("shard_2"):
            profile.save()
        with self.assert_touches("shard_2"):
            profile.delete()

    def test_what_was_made_of_text_is_saved_again(self) -> None:
        profile = Profile.objects.create(user_id=str(FREE_ID))
        activity = Activity.objects.create(profile_id=FREE_ID.hex)
        profile.plan = activity.kind = "pro"
        with self.assert_touches("shard_2"):
            profile.save()
            activity.save()
            Profile.objects.bulk_update([profile], ["plan"])
            Activity.objects.bulk_update([activity], ["kind"])
            Activity.objects.bulk_create([Activity(profile_id=str(FREE_ID))])[0].save()

    def test_a_changed_key(self) -> None:
        for change in (EVE, CY):  # of the same shard, of another
            activity = Activity.objects.get(profile=BOB, kind="login")
            activity.profile_id = change
            with self.assert_touches(), self.assertRaises(ShardKeyChanged):
                activity.save()
            with self.assert_touches(), self.assertRaises(ShardKeyChanged):
                activity.save(update_fields=["kind"])
            with self.assert_touches(), self.assertRaises(ShardKeyChanged):
                Activity.objects.bulk_update([activity], ["kind"])
            with self.assert_touches(), self.assertRaises(ShardKeyChanged):
                activity.delete()

    def test_a_changed_key_of_what_was_made_in_bulk(self) -> None:
        (activity,) = Activity.objects.bulk_create([Activity(profile_id=BOB, kind="new")])
        activity.profile_id = CY
        with self.assert_touches(), self.assertRaises(ShardKeyChanged):
            activity.save()

    def test_a_copy_under_another_key(self) -> None:
        activity = Activity.objects.get(profile=BOB, kind="login")
        activity.pk, activity._state.adding = activity_id(CY, 7), True
        activity.profile_id = CY
        with self.assert_touches("shard_3"):
            activity.save()
        self.assertEqual(counts(Activity), {"shard_1": 5, "shard_2": 2, "shard_3": 2})

    def test_on_another_shard(self) -> None:
        with self.assert_touches(), self.assertRaises(WrongShard):
            Profile(user_id=BOB).save(using="shard_1")

    def test_update_fields_with_the_key_that_is_there(self) -> None:
        activity = Activity.objects.get(profile=BOB, kind="login")
        with self.assert_touches("shard_2", times=1):
            activity.save(update_fields=["profile", "kind"])


class GetOrCreateTests(WorldTestCase):
    def test_finds_on_the_keys_shard(self) -> None:
        with self.assert_touches("shard_2", times=1):
            found, created = Profile.objects.get_or_create(user_id=BOB, defaults={"plan": "team"})
        self.assertEqual((found.plan, created), ("free", False))

    def test_makes_on_the_keys_shard(self) -> None:
        with self.assert_touches("shard_2"):
            made, created = Profile.objects.get_or_create(user_id=FREE_ID, plan="team")
        self.assertEqual((made._state.db, created), ("shard_2", True))
        with self.assert_touches("shard_3"):
            Activity.objects.get_or_create(profile_id=CY, kind="new", defaults={"amount": 1})

    def test_the_key_of_a_filter_will_do_to_find(self) -> None:
        with self.assert_touches("shard_2", times=1):
            found, _ = Activity.objects.filter(profile=BOB).get_or_create(kind="login")
        self.assertEqual(found.pk, activity_id(BOB, 0))
        with self.assertRaises(ShardKeyRequired), transaction.atomic(using="shard_2"):
            Activity.objects.filter(profile=BOB).get_or_create(kind="new")

    def test_a_key_in_the_defaults_alone_will_not_do(self) -> None:
        """Whether there is such a row, only all shards together could say."""
        for method in (Activity.objects.get_or_create, Activity.objects.update_or_create):
            with self.assert_touches(), self.assertRaises(ShardKeyRequired):
                method(pk=activity_id(BOB, 0), defaults={"profile_id": BOB})
        with self.assert_touches(), self.assertRaises(AcrossShardsRefused):
            Activity.objects.across_shards().get_or_create(pk=activity_id(BOB, 0))

    def test_another_key_in_the_defaults(self) -> None:
        with self.assertRaises(WrongShard), transaction.atomic(using="shard_2"):
            Profile.objects.get_or_create(user_id=FREE_ID, defaults={"user_id": ADA})
        with self.assertRaises(ShardKeyChanged), transaction.atomic(using="shard_2"):
            Activity.objects.update_or_create({"profile_id": EVE}, profile=BOB, kind="login")

    def test_on_another_shard(self) -> None:
        with self.assertRaises(WrongShard), transaction.atomic(using="shard_1"):
            Profile.objects.using("shard_1").get_or_create(user_id=FREE_ID)
        self.assertEqual(counts(Profile), dict.fromkeys(SHARDS, 2))

    def test_keys_of_several_shards(self) -> None:
        with self.assert_touches(), self.assertRaises(AcrossShardsRefused):
            Profile.objects.get_or_create(user_id__in=[ADA, BOB])

    def test_update_or_create(self) -> None:
        with self.assert_touches("shard_2"):
            changed, created = Profile.objects.update_or_create({"plan": "team"}, user_id=BOB)
        self.assertEqual((changed.plan, created), ("team", False))
        with self.assert_touches("shard_2"):
            made, created = Profile.objects.update_or_create(
                {"plan": "pro"}, create_defaults={"plan": "team"}, user_id=FREE_ID
            )
        self.assertEqual((made.plan, created), ("team", True))
        self.assert_on_shards(Profile)


class BulkTests(WorldTestCase):
    def test_each_object_to_its_shard(self) -> None:
        objects = [Activity(profile_id=key, kind="bulk") for key in (CY, str(BOB), ADA, CY, DEE)]
        with self.assert_touches(*SHARDS, times=1):
            made = Activity.objects.bulk_create(iter(objects))
        self.assertEqual(made, objects)
        owners = [OWNERS[key] for key in (CY, BOB, ADA, CY, DEE)]
        self.assertEqual([each._state.db for each in made], owners)
        self.assertFalse(any(each._state.adding for each in made))
        self.assert_on_shards(Activity)

    def test_only_the_shards_of_the_objects(self) -> None:
        with self.assert_touches("shard_2", times=1):
            Profile.objects.bulk_create([Profile(user_id=FREE_ID)])
        with self.assert_touches():
            self.assertEqual(Profile.objects.bulk_create([]), [])

    def test_batches(self) -> None:
        objects = [Activity(profile_id=CY) for _ in range(5)]
        with self.assert_touches("shard_3", times=3):
            Activity.objects.bulk_create(objects, 2)

    def test_conflicts(self) -> None:
        again = [Profile(user_id=key, plan="team", bio="new") for key in (ADA, BOB, FREE_ID)]
        Profile.objects.bulk_create(again, ignore_conflicts=True)
        self.assertEqual(Profile.objects.get(pk=ADA).bio, "")
        Profile.objects.bulk_create(
            again, update_conflicts=True, update_fields=["bio"], unique_fields=["pk"]
        )
        self.assertEqual(Profile.objects.across_shards().filter(bio="new").count(), 3)
        self.assertEqual(Profile.objects.get(pk=ADA).plan, "pro")

    def test_conflicts_do_not_rewrite_keys(self) -> None:
        again = Activity(pk=activity_id(BOB, 0), profile_id=EVE)
        for fields in (["profile"], ["kind", "profile_id"]):
            with self.assert_touches(), self.assertRaises(ShardKeyChanged):
                Activity.objects.bulk_create([again], None, False, True, fields, ["id"])

    def test_without_a_key(self) -> None:
        with self.assert_touches(), self.assertRaises(ShardKeyRequired):
            Activity.objects.bulk_create([Activity(profile_id=ADA), Activity()])

    def test_on_another_shard(self) -> None:
        for method in (
            lambda objects: Profile.objects.using("shard_2").bulk_create(objects),
            lambda objects: Profile.objects.using("shard_2").bulk_update(objects, ["plan"]),
        ):
            with self.assert_touches(), self.assertRaisesMessage(WrongShard, "belongs on shard_1"):
                method([Profile(user_id=BOB), Profile(user_id=ADA)])

    def test_on_its_own_shard(self) -> None:
        with self.assert_touches("shard_2"):
            Profile.objects.using("shard_2").bulk_create([Profile(user_id=FREE_ID)])

    def test_bulk_update(self) -> None:
        objects = list(Profile.objects.across_shards().order_by("created_at"))
        for number, each in enumerate(objects):
            each.bio = str(number)
        with self.assert_touches(*SHARDS, times=1):
            self.assertEqual(Profile.objects.bulk_update(iter(objects), iter(["bio"])), 6)
        stored = Profile.objects.across_shards().order_by("created_at")
        self.assertEqual([each.bio for each in stored], ["0", "1", "2", "3", "4", "5"])

    def test_bulk_update_of_the_objects_shards_only(self) -> None:
        objects = list(Activity.objects.filter(profile__in=[ADA, CY]))
        for each in objects:
            each.kind = "changed"
        with self.assert_touches("shard_1", "shard_3"):
            self.assertEqual(Activity.objects.bulk_update(objects, ["kind"], batch_size=2), 4)

    def test_bulk_update_where_another_shard_has_the_same_pk(self) -> None:
        """Django would write both objects through one database, and so overwrite its row."""
        same = activity_id(ADA, 0)
        plain(Activity, "shard_2").filter(kind="login").update(id=same)
        objects = [Activity.objects.get(pk=same, profile=key) for key in (ADA, BOB)]
        for each in objects:
            each.kind = f"of {each.profile_id}"
        Activity.objects.bulk_update(objects, ["kind"])
        for key in (ADA, BOB):
            self.assertEqual(Activity.objects.get(pk=same, profile=key).kind, f"of {key}")

    def test_bulk_update_refuses_the_key(self) -> None:
        for name in ("profile", "profile_id"):
            with self.assert_touches(), self.assertRaises(ShardKeyChanged):
                Activity.objects.bulk_update([Activity(profile_id=ADA)], ["kind", name])

    def test_as_django_refuses(self) -> None:
        with self.assertRaisesMessage(ValueError, "must be a positive integer"):
            Profile.objects.bulk_create([Profile(user_id=ADA)], batch_size=0)
        with self.assertRaisesMessage(ValueError, "Field names must be given"):
            Profile.objects.bulk_update([Profile(user_id=ADA)], [])  # type: ignore[misc]
        with self.assertRaisesMessage(ValueError, "Field names must be given"):
            Profile.objects.bulk_update([], [])  # type: ignore[misc]


class FailureTests(WorldTestCase):
    """Inside atomic(), a write that failed on one shard is undone on the others as well."""

    def setUp(self) -> None:
        super().setUp()
        Profile.objects.create(user_id=FREE_ID, bio="x")

    def test_the_error_names_the_shard_and_stays_djangos(self) -> None:
        with transaction.atomic("shard_1"), transaction.atomic("shard_2"):
            with self.assertRaises(IntegrityError) as caught:
                Profile.objects.bulk_create([Profile(user_id=ADA), Profile(user_id=FREE_ID)])
            for alias in ("shard_1", "shard_2"):
                transaction.set_rollback(True, using=alias)
        self.assertTrue(str(caught.exception).startswith("shard_1: duplicate key"))
        self.assertEqual(getattr(caught.exception.__cause__, "sqlstate", None), "23505")

    def test_the_shards_before_it_are_marked_for_rollback(self) -> None:
        objects = list(Activity.objects.filter(profile__in=[ADA, BOB]))
        for each in objects:
            each.amount = Decimal(10 ** (11 if each.profile_id == BOB else 3))
        with ExitStack() as stack:
            for alias in SHARDS:
                stack.enter_context(transaction.atomic(alias))
            with self.assertRaisesMessage(DataError, "shard_2: numeric field overflow"):
                Activity.objects.bulk_update(objects, ["amount"])
            marked = [transaction.get_rollback(using=alias) for alias in SHARDS]
        self.assertEqual(marked, [True, True, False])
        self.assertFalse(Activity.objects.filter(profile=ADA, amount=1000).exists())

    def test_of_update_and_delete_too(self) -> None:
        divided = F("amount") / (F("amount") - Decimal("0.75"))  # BOB's login
        everything = Activity.objects.across_shards()
        for write in (
            lambda: everything.update(amount=divided),
            lambda: everything.filter(amount__gt=divided).delete(),
        ):
            with ExitStack() as stack:
                for alias in SHARDS:
                    stack.enter_context(transaction.atomic(alias))
                with self.assertRaisesMessage(DataError, "shard_2: division by zero"):
                    write()
                self.assertTrue(all(transaction.get_rollback(using=alias) for alias in SHARDS))
            self.assertEqual(everything.count(), 8)


class CreateInTurnTests(CreateTests):
    in_turn = True
