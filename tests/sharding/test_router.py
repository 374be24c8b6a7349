"""The router's four methods, each through `django.db.router`: a misspelled one is never called.

What belongs where is written down here by name, not asked of the code.
"""

from typing import Any
from uuid import UUID, uuid4

from django.apps import apps
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group
from django.contrib.contenttypes.models import ContentType
from django.core.cache import cache
from django.core.management import call_command
from django.db import connections, models, router
from django.db.migrations.loader import MigrationLoader
from django.test import SimpleTestCase, TestCase, override_settings

from analytics.models import SyncPosition, SyncRun, UserAnalytics
from sharding import get_shard_for_user_id, use_shard
from sharding.errors import InvalidShardKey, ShardingError, ShardKeyRequired
from tests.sharding.ids import id_on, ids_on_each_shard
from users.models import Activity, Profile, ProfileChange, User

SHARDS = {"shard_1", "shard_2", "shard_3"}
SHARDED = {
    "users.Profile": SHARDS,
    "users.Activity": SHARDS,
    # Without a key: each of these databases has its own.
    "users.ProfileChange": SHARDS,
    "analytics.SyncArrival": SHARDS,
    "sharding.Identity": SHARDS,
    "sharding.SlotOwner": SHARDS,
    "analytics.SyncPosition": {"default", *SHARDS},
}


def homes(label: str) -> set[str]:
    """The databases that a model's table stands in."""
    return SHARDED.get(label) or {"analytics" if label.startswith("analytics.") else "default"}


def all_models() -> list[type[models.Model]]:
    """Every model of every app, except those that other tests have defined."""
    found = apps.get_models(include_auto_created=True)
    return [model for model in found if not model.__module__.startswith("tests.")]


def stored(model: type[models.Model], **values: Any) -> models.Model:
    """An instance as if it had been loaded."""
    instance = model(**values)
    instance._state.adding = False
    return instance


class DatabaseCacheTests(TestCase):
    """Its table has no model; what it shows the router is only like one."""

    databases = "__all__"

    @override_settings(
        CACHES={
            "default": {
                "BACKEND": "django.core.cache.backends.db.DatabaseCache",
                "LOCATION": "cached",
            }
        }
    )
    def test_on_the_primary(self) -> None:
        for alias in connections:
            call_command("createcachetable", database=alias)
            tables = connections[alias].introspection.table_names()
            self.assertEqual("cached" in tables, alias == "default", alias)
        cache.set("name", "Ada")
        self.assertEqual(cache.get("name"), "Ada")


class ReadAndWriteTests(TestCase):
    databases = "__all__"

    def both(self, model: type[models.Model], **hints: Any) -> str:
        """The database that reading and writing go to."""
        alias = router.db_for_read(model, **hints)
        self.assertEqual(router.db_for_write(model, **hints), alias)
        return alias

    def test_every_model_of_every_app(self) -> None:
        for model in all_models():
            label = model._meta.label
            with self.subTest(label):
                if label in SHARDED:
                    for function in (router.db_for_read, router.db_for_write):
                        with self.assertRaisesMessage(ShardKeyRequired, label):
                            function(model)
                else:
                    self.assertEqual({self.both(model)}, homes(label))

    def test_use_shard_is_for_sharded_models_alone(self) -> None:
        for alias in SHARDS:
            for model in all_models():
                label = model._meta.label
                expected = {alias} if label in SHARDED else homes(label)
                with self.subTest(label, alias=alias), use_shard(alias):
                    self.assertEqual({self.both(model)}, expected)

    def test_the_key_of_the_instance_decides(self) -> None:
        for alias, user_id in ids_on_each_shard().items():
            for instance in (
                Profile(user_id=user_id),
                Profile(user_id=str(user_id)),
                Activity(profile_id=user_id),
                stored(Activity, profile_id=user_id.hex.upper()),
            ):
                with self.subTest(instance=instance), use_shard("shard_1"):
                    self.assertEqual(self.both(Activity, instance=instance), alias)
                    self.assertEqual(self.both(Profile, instance=instance), alias)

    def test_the_key_goes_before_the_database_it_was_loaded_from(self) -> None:
        # As of another model, or in the middle of a slot's move.
        profile = Profile(user_id=id_on("shard_2"))
        profile._state.db = "shard_3"
        self.assertEqual(self.both(Profile, instance=profile), "shard_2")

    def test_a_new_instance_pinned_by_a_related_one(self) -> None:
        activity = Activity(profile=Profile(user_id=id_on("shard_1")))
        self.assertEqual(activity._state.db, "shard_1")
        activity.profile_id = id_on("shard_3")
        self.assertEqual(self.both(Activity, instance=activity), "shard_3")

    def test_a_deferred_key_is_not_loaded(self) -> None:
        activity = Activity.from_db("shard_2", ["id"], [uuid4()])
        self.assertEqual(activity.get_deferred_fields() & {"profile_id"}, {"profile_id"})
        for alias in SHARDS:
            self.enterContext(self.assertNumQueries(0, using=alias))
        self.assertEqual(self.both(Activity, instance=activity), "shard_2")

    def test_a_row_without_a_key_stays_where_it_was_loaded_from(self) -> None:
        for alias in homes("analytics.SyncPosition"):
            position = stored(SyncPosition, source="users")
            position._state.db = alias
            self.assertEqual(self.both(SyncPosition, instance=position), alias)

    def test_an_instance_that_says_nothing(self) -> None:
        user = User(id=id_on("shard_1"))
        for instance in (None, Profile(), Activity(), user, Group()):
            with self.subTest(instance=instance):
                with self.assertRaises(ShardKeyRequired):
                    self.both(Profile, instance=instance)
                with use_shard("shard_3"):
                    self.assertEqual(self.both(Profile, instance=instance), "shard_3")

    def test_a_sharded_instance_does_not_draw_others_to_its_shard(self) -> None:
        profile = Profile(user_id=id_on("shard_2"))
        profile._state.db = "shard_2"
        self.assertEqual(self.both(User, instance=profile), "default")
        self.assertEqual(self.both(UserAnalytics, instance=profile), "analytics")

    def test_a_key_that_is_no_uuid(self) -> None:
        with self.assertRaises(InvalidShardKey):
            self.both(Profile, instance=Profile(user_id="7"))

    def test_the_error_says_what_to_write(self) -> None:
        message = "users.Profile.*whose rows.*use_shard"
        with self.assertRaisesRegex(ShardKeyRequired, message):
            router.db_for_read(Profile)


class AllowRelationTests(TestCase):
    databases = "__all__"

    def allowed(self, first: models.Model, second: models.Model) -> bool:
        answer = router.allow_relation(first, second)
        self.assertIs(router.allow_relation(second, first), answer)
        self.assertIsInstance(answer, bool)
        return answer

    def test_between_databases(self) -> None:
        samples: dict[str, list[models.Model]] = {
            "default": [User(), Group(), LogEntry(), ContentType()],
            "analytics": [UserAnalytics(), SyncRun()],
            "shards": [Profile(), Activity(), ProfileChange()],
            "primary and shards": [SyncPosition()],
        }
        for place, instances in samples.items():
            for other, others in samples.items():
                for first in instances:
                    for second in others:
                        with self.subTest(first=type(first), second=type(second)):
                            self.assertIs(self.allowed(first, second), place == other)

    def test_with_the_ids_in_common(self) -> None:
        user_id = id_on("shard_1")
        profile = stored(Profile, user_id=user_id)
        self.assertFalse(self.allowed(stored(User, id=user_id), profile))
        self.assertFalse(self.allowed(stored(UserAnalytics, user_id=user_id), profile))

    def test_between_keys(self) -> None:
        ours, beside, elsewhere = id_on("shard_1"), id_on("shard_1"), id_on("shard_2")
        profile = stored(Profile, user_id=ours)
        self.assertTrue(self.allowed(profile, stored(Activity, profile_id=ours)))
        # On the same shard, until a slot moves.
        self.assertFalse(self.allowed(profile, stored(Activity, profile_id=beside)))
        self.assertFalse(self.allowed(profile, stored(Activity, profile_id=elsewhere)))

    def test_a_key_as_text_is_the_same_key(self) -> None:
        user_id = id_on("shard_1")
        profile = stored(Profile, user_id=str(user_id).upper())
        self.assertTrue(self.allowed(profile, stored(Activity, profile_id=user_id)))
        self.assertFalse(self.allowed(profile, stored(Activity, profile_id=uuid4())))

    def test_a_new_one_takes_the_others_key(self) -> None:
        profile = stored(Profile, user_id=uuid4())
        self.assertTrue(self.allowed(profile, Activity()))
        self.assertTrue(self.allowed(profile, Activity(profile_id=uuid4())))
        self.assertTrue(self.allowed(Profile(user_id=uuid4()), Activity()))

    def test_a_deferred_key_is_not_loaded(self) -> None:
        activity = Activity.from_db("shard_2", ["id"], [uuid4()])
        for alias in SHARDS:
            self.enterContext(self.assertNumQueries(0, using=alias))
        self.assertTrue(self.allowed(activity, stored(Profile, user_id=uuid4())))

    def test_assigning_asks_it(self) -> None:
        activity = stored(Activity, profile_id=id_on("shard_1"))
        with self.assertRaisesMessage(ValueError, "database router prevents this relation"):
            activity.profile = stored(Profile, user_id=id_on("shard_2"))  # type: ignore[attr-defined]


class AllowMigrateTests(SimpleTestCase):
    def assertAllowed(self, expected: set[str], app_label: str, **hints: Any) -> None:
        """Assert that allow_migrate answers True for these databases and False for the others."""
        answers = {alias: router.allow_migrate(alias, app_label, **hints) for alias in connections}
        for alias, answer in answers.items():
            self.assertIs(answer, alias in expected, (alias, app_label, hints))

    def test_every_model_of_every_app(self) -> None:
        for model in all_models():
            options = model._meta
            expected = homes(options.label)
            for hints in (
                {"model_name": options.model_name},
                {"model_name": options.object_name},
                {"model_name": options.model_name, "model": model},
            ):
                with self.subTest(options.label, hints=hints):
                    self.assertAllowed(expected, options.app_label, **hints)
            for alias in connections:
                allowed = router.allow_migrate_model(alias, model)
                self.assertIs(allowed, alias in expected, options.label)

    def test_every_model_in_migrations(self) -> None:
        # They have lost their base classes.
        state = MigrationLoader(None).project_state()
        historical = state.apps.get_models(include_auto_created=True)
        self.assertLess({*SHARDED}, {model._meta.label for model in historical})
        for model in historical:
            options = model._meta
            with self.subTest(options.label):
                hints = {"model_name": options.model_name, "model": model}
                self.assertAllowed(homes(options.label), options.app_label, **hints)

    def test_an_app_whose_models_live_in_one_place(self) -> None:
        for app_label in ("auth", "sessions", "no_such_app", "staticfiles"):
            self.assertAllowed({"default"}, app_label)
            self.assertAllowed({"default"}, app_label, model_name="nothing")
        self.assertAllowed({"analytics"}, "analytics")
        self.assertAllowed({"analytics"}, "analytics", model_name="nothing")

    def test_an_app_whose_models_live_in_several_places(self) -> None:
        for hints in ({}, {"model_name": "nothing"}, {"model_name": ""}):
            for alias in connections:
                with (
                    self.subTest(alias, hints=hints),
                    self.assertRaisesMessage(ShardingError, 'hints={"model_name": "…"}'),
                ):
                    router.allow_migrate(alias, "users", **hints)

    def test_a_database_that_is_none_of_ours(self) -> None:
        for model in (User, Profile, UserAnalytics):
            self.assertIs(router.allow_migrate_model("other", model), False)


class TablesTests(TestCase):
    databases = "__all__"

    def test_each_database_holds_exactly_what_belongs_there(self) -> None:
        for alias in connections:
            expected = {
                model._meta.db_table
                for model in all_models()
                if alias in homes(model._meta.label) and not model._meta.proxy
            }
            with self.subTest(alias):
                tables = connections[alias].introspection.table_names()
                self.assertEqual(set(tables), expected | {"django_migrations"})

    def test_each_query_finds_its_table(self) -> None:
        for model in all_models():
            for alias in homes(model._meta.label):
                with self.subTest(model._meta.label, alias=alias):
                    model._base_manager.using(alias).first()

    def test_a_row_goes_where_its_key_says(self) -> None:
        for alias, user_id in ids_on_each_shard().items():
            Profile(user_id=user_id).save()
            self.assertEqual(get_shard_for_user_id(user_id), alias)
            self.assertEqual(self._shards_with(user_id), {alias})

    def _shards_with(self, user_id: UUID) -> set[str]:
        return {a for a in SHARDS if Profile.objects.using(a).filter(pk=user_id).exists()}
