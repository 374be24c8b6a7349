"""The system checks: one test for each id, and what is right passes."""

# ruff: noqa: DJ008  nobody prints these models

import uuid
from typing import Any
from unittest import mock

from django.apps import AppConfig
from django.apps.registry import Apps
from django.core.checks import CheckMessage, run_checks
from django.core.management import call_command
from django.db import connection, connections, models
from django.db.backends.postgresql.base import DatabaseWrapper as PlainWrapper
from django.db.models import F
from django.db.models.functions import Lower
from django.test import SimpleTestCase, TestCase, override_settings
from django.test.utils import CaptureQueriesContext, isolate_apps

from sharding import fence, identity, slot_cache
from sharding.checks import check_models, check_settings, check_stored_slot_map
from sharding.errors import WrongDatabase
from sharding.models import Cluster, Shard, ShardedManager, ShardedModel, Slot
from sharding.router import DatabaseRouter
from sharding.shard_checks import check_shards
from tests.outage import disconnect, pointed_to, scratch_databases
from tests.support import hand_over


class OwnRouter(DatabaseRouter):
    """A project's own."""


class ProjectTests(TestCase):
    databases = "__all__"

    def test_the_project_itself_is_clean(self) -> None:
        self.assertEqual(run_checks(databases=[*connections]), [])


class CheckTestCase(SimpleTestCase):
    def assertErrors(self, found: list[CheckMessage], *expected: tuple[str, str]) -> None:
        """Assert the messages, as pairs of an id and a part of the text; each needs a hint."""
        texts = [f"{message.id} {message.msg}" for message in found]
        self.assertEqual([message.id for message in found], [id for id, _ in expected], texts)
        for message, (_, text) in zip(found, expected, strict=True):
            self.assertIn(text, message.msg)
            self.assertTrue(message.hint)
            self.assertTrue(message.is_serious())


class SettingsTests(CheckTestCase):
    def test_e001_first_slot_map(self) -> None:
        for setting, text in {
            "shard_1=0-5": "994 slots have no owner",
            "shard_1=0-999,shard_2=5-5": "both shard_1 and shard_2",
            "shard_9=0-999": "slots to shard_9, which",
            "analytics=0-999": "slots to analytics, which",
            "nonsense": "no range of slots",
        }.items():
            with self.subTest(setting), self.settings(SHARD_SLOTS=setting):
                self.assertErrors(check_settings(), ("sharding.E001", text))
        for setting in ("", "shard_2=0-999"):
            with self.subTest(setting), self.settings(SHARD_SLOTS=setting):
                self.assertErrors(check_settings())

    def test_e009_router(self) -> None:
        for routers in ([], ["tests.sharding.test_checks.CheckTestCase"], [object()]):
            with self.subTest(routers), self.settings(DATABASE_ROUTERS=routers):
                found = check_settings()
                self.assertErrors(found, ("sharding.E009", "every query goes to the primary"))
        for router in (DatabaseRouter(), "tests.sharding.test_checks.OwnRouter", OwnRouter()):
            with self.subTest(router), override_settings(DATABASE_ROUTERS=[object(), router]):
                self.assertErrors(check_settings())

    def test_e010_backend(self) -> None:
        ours = connections["shard_1"]
        self.addCleanup(connections.__setitem__, "shard_1", ours)
        connections["shard_1"] = PlainWrapper(ours.settings_dict, "shard_1")
        self.assertErrors(check_settings(), ("sharding.E010", "DATABASES['shard_1'] uses"))

    def test_e015_time_zone(self) -> None:
        zone = mock.patch.object(connections["shard_2"], "timezone_name", "Europe/Berlin")
        with zone:
            found = check_settings()
        self.assertErrors(found, ("sharding.E015", "shard_2 gives moments in the time zone Europe"))


class StoredSlotMapTests(CheckTestCase):
    databases = {"default", "shard_1"}

    def setUp(self) -> None:
        self.enterContext(scratch_databases("default"))
        call_command("migrate", "sharding", database="default", verbosity=0)

    def test_e002_stored_slot_map(self) -> None:
        for change, text in {
            "DELETE FROM sharding_slot WHERE slot = 7": "1 slots have no owner",
            "UPDATE sharding_slot SET shard = 'shard_9' WHERE slot = 8": "slots to shard_9",
        }.items():
            with connection.cursor() as cursor:
                cursor.execute(change)
            found = check_stored_slot_map(databases=["shard_1", "default"])
            self.assertErrors(found, ("sharding.E002", text))
            with connection.cursor() as cursor:
                cursor.execute(
                    "INSERT INTO sharding_slot VALUES (7, 'shard_1', 1) ON CONFLICT DO NOTHING"
                )

    def test_a_whole_one_and_none_at_all(self) -> None:
        self.assertErrors(check_stored_slot_map(databases=["default"]))
        with connection.cursor() as cursor:
            cursor.execute("DELETE FROM sharding_slot")
            self.assertErrors(check_stored_slot_map(databases=["default"]))
            cursor.execute("DROP TABLE sharding_slot")
            self.assertErrors(check_stored_slot_map(databases=["default"]))

    def test_without_the_primary_it_asks_nothing(self) -> None:
        with CaptureQueriesContext(connection) as queries:
            for databases in (None, [], ["shard_1"]):
                self.assertErrors(check_stored_slot_map(databases=databases))
        self.assertEqual(len(queries), 0)


class Base(ShardedModel):
    """What a sharded model of these tests needs besides its fault."""

    user_id: Any = models.UUIDField(primary_key=True)

    class Meta:
        abstract = True
        app_label = "users"


@isolate_apps("users", "analytics", attr_name="apps")
class ModelsTests(CheckTestCase):
    apps: Apps

    def assertFound(self, *expected: tuple[str, str]) -> None:
        configs: list[AppConfig] = [*self.apps.get_app_configs()]
        self.assertErrors(check_models(app_configs=configs), *expected)

    def test_what_is_right(self) -> None:
        class Parent(Base):
            email = models.EmailField()
            everything = ShardedManager()

            class Meta:
                app_label = "users"
                ordering = ["email"]
                unique_together = [["user_id", "email"]]

        class Child(ShardedModel):
            shard_key = "parent"
            id = models.UUIDField(primary_key=True, default=uuid.uuid4)
            parent = models.ForeignKey(Parent, models.CASCADE)
            name = models.TextField()
            plain_id = models.UUIDField()

            class Meta:
                app_label = "users"
                constraints = [
                    models.UniqueConstraint(fields=["parent", "id"], name="a"),
                    models.UniqueConstraint("parent_id", Lower("name"), name="b"),
                ]

        class Proxy(Child):
            class Meta:
                proxy = True
                app_label = "users"

        class OneToOne(ShardedModel):
            shard_key = "parent"
            parent = models.OneToOneField(Parent, models.CASCADE, primary_key=True)

            class Meta:
                app_label = "users"

        class Composite(ShardedModel):
            shard_key = "parent"
            pk = models.CompositePrimaryKey("parent_id", "number")
            parent = models.ForeignKey(Parent, models.CASCADE)
            number = models.IntegerField()

            class Meta:
                app_label = "users"

        class Plain(models.Model):
            other = models.ForeignKey("self", models.CASCADE)
            others = models.ManyToManyField("self")
            code = models.TextField(unique=True)

            class Meta:
                app_label = "users"

        self.assertFound()

    def test_e003_no_key(self) -> None:
        class NoKey(ShardedModel):
            id = models.UUIDField(primary_key=True, default=uuid.uuid4)

            class Meta:
                app_label = "users"

        self.assertFound(("sharding.E003", "users.NoKey has no field 'user_id'"))

    def test_e003_key_may_be_null(self) -> None:
        class Nullable(Base):
            id = models.UUIDField(primary_key=True, default=uuid.uuid4)
            user_id = models.UUIDField(null=True)

            class Meta:
                app_label = "users"

        self.assertFound(("sharding.E003", "allows its shard key 'user_id' to be NULL"))

    def test_e003_key_of_another_type(self) -> None:
        class Numbered(Base):
            user_id = models.BigIntegerField(primary_key=True)

            class Meta:
                app_label = "users"

        self.assertFound(("sharding.E003", "shard key 'user_id' that is no UUID"))

    def test_e003_key_from_a_foreign_key_to_something_else(self) -> None:
        class Item(Base):
            shard_key = "user_id"
            id = models.UUIDField(primary_key=True, default=uuid.uuid4)
            user_id = models.UUIDField()

            class Meta:
                app_label = "users"

        class Part(ShardedModel):
            shard_key = "item"
            id = models.UUIDField(primary_key=True, default=uuid.uuid4)
            item = models.ForeignKey(Item, models.CASCADE)  # to its id, not to its user_id

            class Meta:
                app_label = "users"

        self.assertFound(("sharding.E003", "from 'item', which refers to no sharded key"))

    def test_e004_foreign_key_to_another_database(self) -> None:
        class Account(models.Model):
            class Meta:
                app_label = "users"

        class Report(models.Model):
            class Meta:
                app_label = "analytics"

        class Item(Base):
            account = models.ForeignKey(Account, models.CASCADE)
            report = models.OneToOneField(Report, models.CASCADE, db_constraint=False)

            class Meta:
                app_label = "users"
                constraints = [models.UniqueConstraint(fields=["user_id"], name="a")]

        class Pointer(models.Model):
            item = models.ForeignKey(Item, models.CASCADE)
            report = models.ForeignKey(Report, models.CASCADE)

            class Meta:
                app_label = "users"

        self.assertFound(
            (
                "sharding.E004",
                "users.Item.account: this relation lives on shards, its target "
                "users.Account on primary",
            ),
            ("sharding.E004", "its target analytics.Report on analytics"),
            ("sharding.E005", "unique report holds on each shard"),
            (
                "sharding.E004",
                "users.Pointer.item: this relation lives on primary, its target "
                "users.Item on shards",
            ),
            ("sharding.E004", "users.Pointer.report: this relation lives on primary"),
        )

    def test_e004_foreign_key_beside_the_key(self) -> None:
        class Item(Base):
            class Meta:
                app_label = "users"

        class Link(Base):
            item = models.ForeignKey(Item, models.CASCADE)

            class Meta:
                app_label = "users"

        class Extension(Base):
            of = models.OneToOneField(Item, models.CASCADE)

            class Meta:
                app_label = "users"

        self.assertFound(
            ("sharding.E004", "users.Link.item: this relation is not the shard key"),
            ("sharding.E004", "users.Extension.of: this relation is not the shard key"),
            ("sharding.E005", "unique of holds on each shard"),
        )

    def test_e004_many_to_many_into_another_database(self) -> None:
        class Item(Base):
            class Meta:
                app_label = "users"

        class Club(models.Model):
            items = models.ManyToManyField(Item)

            class Meta:
                app_label = "users"

        self.assertFound(
            (
                "sharding.E004",
                "users.Club.items: this relation lives on primary, its target users.Item on shards",
            ),
        )

    def test_a_target_that_does_not_exist_is_left_to_django(self) -> None:
        class Item(Base):
            nothing = models.ForeignKey("users.Nothing", models.CASCADE)
            nothings: Any = models.ManyToManyField("users.Nothing")  # type: ignore[misc]

            class Meta:
                app_label = "users"

        self.assertFound(("sharding.E007", "nothings"))

    def test_e005_unique_without_the_key(self) -> None:
        class Item(Base):
            email = models.EmailField(unique=True)
            one = models.TextField()
            two = models.TextField()

            class Meta:
                app_label = "users"
                unique_together = [["one", "two"]]
                constraints = [
                    models.UniqueConstraint(fields=["two"], name="a"),
                    models.UniqueConstraint(Lower("one"), name="b"),
                    models.UniqueConstraint(Lower("one"), "user_id", name="c"),
                    models.CheckConstraint(condition=models.Q(one="1"), name="d"),
                ]

        self.assertFound(
            ("sharding.E005", "users.Item: unique email holds on each shard"),
            ("sharding.E005", "unique one, two holds"),
            ("sharding.E005", "unique two holds"),
            ("sharding.E005", "unique one holds"),
        )

    def test_e005_unique_for_a_date_without_the_key(self) -> None:
        """A form looks on the shard of its row only."""

        class Item(Base):
            slug = models.SlugField(unique_for_date="day")
            code = models.SlugField(unique_for_year="day")
            day = models.DateField()

            class Meta:
                app_label = "users"

        self.assertFound(
            ("sharding.E005", "users.Item: unique slug holds on each shard"),
            ("sharding.E005", "users.Item: unique code holds on each shard"),
        )

    def test_e006_primary_keys_that_two_shards_can_give(self) -> None:
        class Counted(ShardedModel):
            user_id = models.UUIDField()

            class Meta:
                app_label = "users"

        class Fixed(Base):
            id = models.UUIDField(primary_key=True, default=uuid.uuid1)
            user_id = models.UUIDField()

            class Meta:
                app_label = "users"

        class Composite(ShardedModel):
            pk = models.CompositePrimaryKey("one", "two")
            user_id = models.UUIDField()
            one = models.IntegerField()
            two = models.IntegerField()

            class Meta:
                app_label = "users"

        self.assertFound(
            ("sharding.E006", "users.Counted: two shards can give the same primary key 'id'"),
            ("sharding.E006", "users.Fixed"),
            ("sharding.E006", "users.Composite"),
        )

    def test_e007_multi_table_inheritance(self) -> None:
        class Parent(Base):
            class Meta:
                app_label = "users"

        class Child(Parent):
            class Meta:
                app_label = "users"

        self.assertIn(
            ("sharding.E007", "users.Child inherits from a model with a table of its own."),
            [
                (message.id, message.msg)
                for message in check_models(app_configs=[*self.apps.get_app_configs()])
            ],
        )

    def test_e007_many_to_many(self) -> None:
        class Item(Base):
            others = models.ManyToManyField("self")

            class Meta:
                app_label = "users"

        self.assertFound(("sharding.E007", "users.Item.others"))

    def test_e008_managers(self) -> None:
        class Item(Base):
            everything = models.Manager()

            class Meta:
                app_label = "users"

        class Replaced(Base):
            objects = models.Manager()  # type: ignore[assignment]

            class Meta:
                app_label = "users"

        self.assertFound(
            ("sharding.E008", "users.Item.everything is no ShardedManager"),
            ("sharding.E008", "users.Replaced.objects is no ShardedManager"),
        )

    def test_e008_a_base_manager_that_leaves_rows_out(self) -> None:
        """What save() does not find to update it would insert once more."""

        class Visible(ShardedManager[Any]):
            def get_queryset(self) -> Any:
                return super().get_queryset().filter(hidden=False)

        class Item(Base):
            hidden = models.BooleanField(default=False)
            objects = Visible()

            class Meta:
                app_label = "users"

        class Whole(Base):
            hidden = models.BooleanField(default=False)
            objects = Visible()
            everything = ShardedManager()

            class Meta:
                app_label = "users"
                base_manager_name = "everything"

        self.assertEqual(Whole._base_manager.name, "everything")
        self.assertFound(("sharding.E008", "users.Item.objects leaves rows out"))

    def test_e008_a_sharded_manager_on_a_model_that_is_not(self) -> None:
        class Plain(models.Model):
            objects = ShardedManager()

            class Meta:
                app_label = "users"

        self.assertFound(("sharding.E008", "users.Plain has a ShardedManager but is no"))

    def test_a_meta_of_its_own_keeps_the_base_manager(self) -> None:
        class Item(Base):
            class Meta:  # not derived from its parent's
                app_label = "users"
                ordering = ["user_id"]

        self.assertIsInstance(Item._base_manager, ShardedManager)
        self.assertEqual(Item._meta.original_attrs["base_manager_name"], "objects")
        self.assertFound()


class ShardChecksTests(SimpleTestCase):
    databases = "__all__"

    def assertFound(self, *ids: str) -> None:
        self.assertEqual([each.id for each in check_shards(databases=["shard_1"])], [*ids])

    def identity(self, statement: str) -> None:
        with connections["shard_1"].cursor() as cursor:
            cursor.execute(statement)

    def test_all_is_well(self) -> None:
        self.assertFound()
        self.assertEqual(check_shards(databases=None), [])
        self.assertEqual(check_shards(databases=["default"]), [])

    def test_e011_another_shard_s_server(self) -> None:
        self.addCleanup(self.identity, "UPDATE sharding_identity SET alias = 'shard_1'")
        self.identity("UPDATE sharding_identity SET alias = 'shard_7'")
        self.assertFound("sharding.E011")

    def test_e011_another_installation(self) -> None:
        with connections["default"].cursor() as cursor:
            cursor.execute("SELECT id FROM sharding_cluster")
            (cluster,) = cursor.fetchone()
        self.addCleanup(self.identity, f"UPDATE sharding_identity SET cluster = '{cluster}'")
        self.identity("UPDATE sharding_identity SET cluster = gen_random_uuid()")
        self.assertFound("sharding.E011")
        disconnect("shard_1")
        identity._right.clear()
        with self.assertRaisesMessage(WrongDatabase, "belongs to another installation"):
            connections["shard_1"].ensure_connection()
        with identity.unchecked():
            connections["shard_1"].ensure_connection()

    def test_e011_an_old_backup(self) -> None:
        self.addCleanup(hand_over, [5], "shard_2", "shard_1")
        hand_over([5], "shard_1", "shard_2")
        self.assertIn("older than the last move", check_shards(databases=["shard_1"])[0].msg)

    def test_a_map_that_is_out_of_date_is_no_reason(self) -> None:
        with self.settings(SHARDING_MAP_LIFETIME=1000):
            slot_cache.renew()
            for source, target in (("shard_1", "shard_2"), ("shard_2", "shard_1")):
                hand_over([5], source, target)
                Slot.objects.filter(slot=5).update(shard=target)
                Cluster.objects.update(map_version=F("map_version") + 1)
                self.assertFound()

    def test_e012_the_guard(self) -> None:
        with connections["shard_1"].cursor() as cursor:
            cursor.execute("DROP TRIGGER sharding_guard_delete ON users_activity")
            self.assertFound("sharding.E012")
            fence.install(cursor)
            self.assertFound()

    def test_e013_a_table_with_parts(self) -> None:
        self.addCleanup(self.identity, "DROP TABLE part")
        self.identity("CREATE TABLE part () INHERITS (users_activity)")
        self.assertFound("sharding.E013")

    def test_an_empty_server_in_place_of_one_that_was_lost(self) -> None:
        # The clones of parallel tests are made before the shards are set up.
        Shard.objects.get_or_create(alias="shard_1")
        schema = {"OPTIONS": {**connections["shard_1"].settings_dict["OPTIONS"]}}
        schema["OPTIONS"]["options"] = "-c search_path=lost"
        self.addCleanup(self.identity, "DROP SCHEMA lost CASCADE")
        self.identity("CREATE SCHEMA lost")
        with (
            pointed_to({"shard_1": schema}),
            self.assertRaisesMessage(WrongDatabase, "knows nothing of them. Restore its backup"),
        ):
            call_command("migrate", database="shard_1", verbosity=0)
