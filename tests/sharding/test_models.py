"""A sharded model's own work: each row is written, read and checked on the shard of its key."""

import copy
import json
import pickle
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from uuid import UUID, uuid4

from django.core import serializers
from django.core.exceptions import ValidationError
from django.core.management import call_command
from django.db import connections, transaction
from django.test import TestCase
from django.test.utils import CaptureQueriesContext, isolate_apps

from sharding import conf, get_shard_for_user_id, use_shard
from sharding.errors import ShardKeyChanged, ShardKeyRequired, WrongShard
from tests.sharding.ids import id_on
from users.models import Activity, Profile


class ShardedTestCase(TestCase):
    databases = "__all__"

    @contextmanager
    def assertTouches(self, *aliases: str) -> Iterator[None]:
        """Assert that the block sends statements to these databases and to no others."""
        get_shard_for_user_id(uuid4())  # the slot map is read once in a process
        with ExitStack() as stack:
            captured = {
                alias: stack.enter_context(CaptureQueriesContext(connections[alias]))
                for alias in connections
            }
            yield
        self.assertEqual({alias for alias in captured if len(captured[alias])}, {*aliases})

    def assertStored(self, model: type[Profile | Activity], pk: UUID, *aliases: str) -> None:
        """Assert on which shards there is a row with this primary key."""
        found = [a for a in conf.shards() if model.objects.using(a).filter(pk=pk).exists()]
        self.assertEqual(found, [*aliases])


class OwnShardTests(ShardedTestCase):
    def setUp(self) -> None:
        self.user_id = id_on("shard_2")
        self.profile = Profile(user_id=self.user_id, display_name="Ada")
        self.profile.save()
        self.activity = Activity(profile=self.profile, kind="login")
        self.activity.save()

    def test_insert(self) -> None:
        for alias in conf.shards():
            profile = Profile(user_id=id_on(alias))
            with self.subTest(alias), self.assertTouches(alias):
                profile.save()
            self.assertEqual(profile._state.db, alias)
            self.assertStored(Profile, profile.user_id, alias)

    def test_insert_inside_a_block_for_another_shard(self) -> None:
        profile = Profile(user_id=id_on("shard_3"))
        with use_shard("shard_1"), self.assertTouches("shard_3"):
            profile.save()

    def test_insert_beside_a_parent(self) -> None:
        activity = Activity(profile=self.profile)
        with self.assertTouches("shard_2"):
            activity.save()
        self.assertStored(Activity, activity.id, "shard_2")

    def test_update(self) -> None:
        self.profile.display_name = "Lovelace"
        with self.assertTouches("shard_2"):
            self.profile.save()
        with self.assertTouches("shard_2"):
            self.activity.save(update_fields=["kind"])
        self.profile.refresh_from_db()
        self.assertEqual(self.profile.display_name, "Lovelace")

    def test_a_key_given_as_text(self) -> None:
        user_id = id_on("shard_3")
        profile = Profile(user_id=str(user_id))
        with self.assertTouches("shard_3"):
            profile.save()
            profile.save()
            profile.refresh_from_db()
        activity = Activity(profile_id=user_id.hex.upper())
        with self.assertTouches("shard_3"):
            activity.save()
            activity.save()

    def test_refresh(self) -> None:
        with self.assertTouches("shard_2"):
            self.profile.refresh_from_db()
        with self.assertTouches("shard_2"):
            self.activity.refresh_from_db(fields=["kind"])
        with use_shard("shard_1"), self.assertTouches("shard_2"):
            self.activity.refresh_from_db()

    def test_a_deferred_field_is_loaded_from_its_shard(self) -> None:
        profile = Profile.from_db("shard_2", ["user_id"], [self.user_id])
        with self.assertTouches("shard_2"):
            self.assertEqual(profile.display_name, "Ada")

    def test_a_deferred_key_is_loaded_from_the_shard_of_its_row(self) -> None:
        activity = Activity.from_db("shard_2", ["id"], [self.activity.id])
        with self.assertTouches("shard_2"):
            self.assertEqual(activity.profile_id, self.user_id)

    def test_forward(self) -> None:
        activity = Activity(id=self.activity.id, profile_id=self.user_id)
        with self.assertTouches("shard_2"):
            self.assertEqual(activity.profile, self.profile)
        with self.assertTouches():
            self.assertEqual(activity.profile.user_id, self.user_id)

    def test_backward(self) -> None:
        with self.assertTouches("shard_2"):
            self.assertEqual([*self.profile.activities.all()], [self.activity])
        with self.assertTouches("shard_2"):
            self.assertEqual(self.profile.activities.filter(kind="login").count(), 1)
        with self.assertTouches("shard_2"):
            created = self.profile.activities.create(kind="logout")
        self.assertStored(Activity, created.pk, "shard_2")
        self.assertEqual(self.profile.activities.count(), 2)

    def test_delete(self) -> None:
        with self.assertTouches("shard_2"):
            self.activity.delete()
        self.assertStored(Activity, self.activity.id)

    def test_delete_with_what_belongs_to_it(self) -> None:
        with self.assertTouches("shard_2"):
            count, by_model = self.profile.delete()
        self.assertEqual((count, by_model["users.Activity"]), (2, 1))
        self.assertStored(Profile, self.user_id)

    def test_a_new_object_pinned_by_a_related_one_goes_where_its_key_says(self) -> None:
        other = Profile(user_id=id_on("shard_1"))
        other.save()
        activity = Activity(profile=self.profile)
        self.assertEqual(activity._state.db, "shard_2")
        activity.profile_id = other.user_id
        with self.assertTouches("shard_1"):
            activity.save()
        self.assertStored(Activity, activity.id, "shard_1")

    @isolate_apps("users")
    def test_under_another_class(self) -> None:
        class OtherActivity(Activity):
            class Meta:
                proxy = True
                app_label = "users"

        activity = OtherActivity(profile=self.profile)
        with self.assertTouches("shard_2"):
            activity.save()
        activity.profile_id = id_on("shard_1")
        with self.assertRaises(ShardKeyChanged):
            activity.save()


class RefusedTests(ShardedTestCase):
    def setUp(self) -> None:
        self.profile = Profile(user_id=id_on("shard_1"))
        self.profile.save()
        self.activity = Activity(profile=self.profile)
        self.activity.save()

    def test_a_changed_key(self) -> None:
        for other in (id_on("shard_2"), id_on("shard_1")):
            loaded = Activity.objects.using("shard_1").get(pk=self.activity.pk)
            for activity in (self.activity, loaded):
                activity.profile_id = other
                with self.subTest(other=other), self.assertTouches():
                    with self.assertRaisesMessage(ShardKeyChanged, f"to {other}"):
                        activity.save()
                    with self.assertRaises(ShardKeyChanged):
                        activity.save(update_fields=["kind"])
                    with self.assertRaises(ShardKeyChanged):
                        activity.save(force_insert=True)
        self.assertStored(Activity, self.activity.id, "shard_1")

    def test_a_changed_key_that_is_the_primary_key(self) -> None:
        before, self.profile.user_id = self.profile.user_id, id_on("shard_2")
        with self.assertTouches(), self.assertRaisesMessage(ShardKeyChanged, f"from {before} to"):
            self.profile.save()
        self.assertStored(Profile, self.profile.user_id)

    def test_the_old_key_again_is_no_change(self) -> None:
        self.activity.profile_id = uuid4()
        self.activity.profile_id = str(self.profile.user_id).upper()
        with self.assertTouches("shard_1"):
            self.activity.save()

    def test_a_changed_key_after_pickling(self) -> None:
        for activity in (
            self.activity,
            Activity.objects.using("shard_1").get(pk=self.activity.pk),
        ):
            copied = pickle.loads(pickle.dumps(activity))
            self.assertEqual(copied._state.db, "shard_1")
            with self.assertTouches("shard_1"):
                copied.save()
            copied.profile_id = id_on("shard_2")
            with self.assertRaises(ShardKeyChanged):
                copied.save()

    def test_a_profile_of_another_key(self) -> None:
        other = Profile(user_id=id_on("shard_1"))
        other.save()
        with self.assertRaisesMessage(ValueError, "router prevents this relation"):
            self.activity.profile = other

    def test_another_database(self) -> None:
        new = Activity(profile=self.profile)
        for alias in ("shard_2", "shard_3", "default", "analytics"):
            for instance in (self.profile, self.activity, new):
                with (
                    self.subTest(alias, instance=instance),
                    self.assertTouches(),
                    self.assertRaisesMessage(
                        WrongShard, f"belongs on shard_1 and was to be saved on {alias}"
                    ),
                ):
                    instance.save(using=alias)
        self.activity.save(using="shard_1")

    def test_another_database_through_loaddata(self) -> None:
        # It calls save_base(raw=True), past any save().
        self.activity.kind = "loaded"
        data = json.loads(serializers.serialize("json", [self.profile, self.activity]))
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump(data, file)
            file.flush()
            with self.assertRaises(WrongShard), transaction.atomic("shard_2"):
                call_command("loaddata", file.name, database="shard_2", verbosity=0)
            call_command("loaddata", file.name, database="shard_1", verbosity=0)
            call_command("loaddata", file.name, verbosity=0)  # the primary: nothing belongs there
        self.assertStored(Profile, self.profile.pk, "shard_1")
        self.activity.refresh_from_db()
        self.assertEqual(self.activity.kind, "loaded")

    def test_no_key(self) -> None:
        for instance in (Profile(), Activity()):
            with self.subTest(type(instance)), self.assertTouches():
                with self.assertRaises(ShardKeyRequired):
                    instance.save()
                message = "without (user_id|profile) cannot be saved"
                with self.assertRaisesRegex(ShardKeyRequired, message):
                    instance.save(using="shard_1")


class CopyTests(ShardedTestCase):
    def test_for_another_key(self) -> None:
        first, second = Profile(user_id=id_on("shard_1")), Profile(user_id=id_on("shard_2"))
        for profile in (first, second):
            profile.save()
        activity = Activity(profile=first, kind="login")
        activity.save()
        copied = copy.copy(activity)
        copied._state = copy.copy(activity._state)
        copied.pk, copied.profile_id, copied._state.adding = uuid4(), second.user_id, True
        with self.assertTouches("shard_2"):
            copied.save()
        self.assertStored(Activity, copied.pk, "shard_2")
        self.assertStored(Activity, activity.pk, "shard_1")
        # From now on the new key is its key.
        copied.save()
        copied.profile_id = first.user_id
        with self.assertRaises(ShardKeyChanged):
            copied.save()

    def test_the_usual_way(self) -> None:
        activity = Activity(profile_id=id_on("shard_3"))
        Profile(user_id=activity.profile_id).save()
        activity.save()
        before = activity.pk
        activity.pk, activity._state.adding = uuid4(), True
        with self.assertTouches("shard_3"):
            activity.save()
        self.assertStored(Activity, before, "shard_3")
        self.assertStored(Activity, activity.pk, "shard_3")


class ValidationTests(ShardedTestCase):
    def setUp(self) -> None:
        self.profile = Profile(user_id=id_on("shard_3"))
        self.profile.save()

    def test_duplicates_are_looked_for_on_the_own_shard(self) -> None:
        with self.assertTouches("shard_3"), self.assertRaises(ValidationError) as caught:
            Profile(user_id=self.profile.user_id).full_clean()
        self.assertEqual([*caught.exception.error_dict], ["user_id"])
        for check in ("validate_unique", "validate_constraints", "full_clean"):
            activity = Activity(profile_id=self.profile.user_id, kind="login")
            activity.save()
            activity._state.adding = True
            with (
                self.subTest(check),
                use_shard("shard_1"),
                self.assertTouches("shard_3"),
                self.assertRaises(ValidationError),
            ):
                getattr(activity, check)()

    def test_what_is_valid(self) -> None:
        with self.assertTouches("shard_3"):
            Activity(profile=self.profile, kind="login").full_clean()
        with self.assertTouches():
            self.profile.full_clean()  # as it was stored
        with self.assertTouches("shard_1"):
            Profile(user_id=id_on("shard_1")).full_clean()

    def test_a_parent_that_does_not_exist(self) -> None:
        with self.assertTouches("shard_1"), self.assertRaises(ValidationError) as caught:
            Activity(profile_id=id_on("shard_1"), kind="login").full_clean()
        self.assertEqual([*caught.exception.error_dict], ["profile"])

    def test_without_a_key(self) -> None:
        for instance, name in ((Profile(), "user_id"), (Activity(kind="login"), "profile")):
            with self.assertTouches(), self.assertRaises(ValidationError) as caught:
                instance.full_clean()
            self.assertEqual([*caught.exception.error_dict], [name])

    def test_a_key_that_is_no_uuid(self) -> None:
        # An error of the form, not of the server.
        for instance, name in (
            (Profile(user_id="nonsense"), "user_id"),
            (Activity(profile_id="nonsense", kind="login"), "profile"),
        ):
            with self.subTest(name), self.assertTouches():
                with self.assertRaises(ValidationError) as caught:
                    instance.full_clean()
                self.assertIn(name, caught.exception.error_dict)
