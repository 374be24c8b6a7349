"""The slot map's table: filled once by `migrate`, from then on the truth."""

from concurrent.futures import ThreadPoolExecutor, wait
from threading import Event
from unittest import mock
from uuid import UUID

from django.core.management import call_command
from django.db import connection, connections
from django.test import SimpleTestCase, TestCase, override_settings
from django.test.utils import CaptureQueriesContext

from sharding import conf, get_shard_for_user_id, slot_cache
from sharding.errors import DatabaseUnavailable, InvalidShardKey, InvalidSlotMap
from sharding.models import Slot
from sharding.slots import SlotMap
from tests.outage import scratch_databases
from tests.support import server_down

UNEVEN = "shard_1=0-9,shard_2=10-19,shard_3=20-999"


def migrate(*arguments: str, database: str = "default") -> None:
    call_command("migrate", *arguments, database=database, verbosity=0)


class FillTests(SimpleTestCase):
    databases = {"default"}

    def setUp(self) -> None:
        self.enterContext(scratch_databases("default"))

    @override_settings(SHARD_SLOTS="")
    def test_even_without_a_setting(self) -> None:
        migrate("sharding")
        self.assertEqual(slot_cache.current(), SlotMap.even(conf.shards()))

    @override_settings(SHARD_SLOTS=UNEVEN)
    def test_from_the_setting(self) -> None:
        migrate("sharding")
        self.assertEqual(str(slot_cache.current()), UNEVEN)
        self.assertEqual(slot_cache.current().version, 1)

    def test_later_ones_change_nothing(self) -> None:
        migrate("sharding")
        Slot.objects.filter(slot__lt=10).update(shard="shard_3", version=2)
        slot_cache.clear()
        before = slot_cache.current()
        for setting in ("", UNEVEN, "shard_1=0-999"):
            with self.subTest(setting), self.settings(SHARD_SLOTS=setting):
                migrate("sharding")
                self.assertEqual(slot_cache.current(), before)
        self.assertEqual(before.version, 2)

    def test_later_ones_do_not_even_read_the_setting(self) -> None:
        # It may name a shard that was emptied and taken away since.
        migrate("sharding")
        before = slot_cache.current()
        with self.settings(SHARD_SLOTS="shard_7=0-999"):
            migrate("sharding")
            self.assertEqual(slot_cache.current(), before)

    def test_a_new_shard_owns_nothing(self) -> None:
        migrate("sharding")
        before = slot_cache.current()
        shards = (*conf.shards(), "shard_4")
        with mock.patch.object(conf, "shards", return_value=shards):
            migrate("sharding")
            self.assertEqual(slot_cache.current(), before)

    @override_settings(SHARD_SLOTS="shard_7=0-999")
    def test_an_unknown_shard_is_refused_and_nothing_stored(self) -> None:
        with self.assertRaisesMessage(InvalidSlotMap, "shard_7"):
            migrate("sharding")
        self.assertFalse(slot_cache.is_filled())

    def test_not_migrated(self) -> None:
        with self.assertRaisesMessage(InvalidSlotMap, "Run `manage.py migrate`"):
            get_shard_for_user_id(UUID(int=0))

    def test_taken_back_and_migrated_again(self) -> None:
        migrate("sharding")
        migrate("sharding", "zero")
        with self.assertRaisesMessage(InvalidSlotMap, "Run `manage.py migrate`"):
            slot_cache.read()
        migrate("sharding")
        self.assertEqual(slot_cache.read(), conf.first_slot_map())


class OtherDatabaseTests(SimpleTestCase):
    databases = {"shard_1"}

    def test_no_map_is_stored_elsewhere(self) -> None:
        with scratch_databases("shard_1"):
            migrate(database="shard_1")
            tables = connections["shard_1"].introspection.table_names()
        self.assertNotIn("sharding_slot", tables)
        self.assertIn("users_profile", tables)

    def test_another_database_is_not_even_asked(self) -> None:
        with CaptureQueriesContext(connections["shard_1"]) as queries:
            slot_cache.fill("shard_1")
        self.assertEqual(len(queries), 0)


class CurrentTests(TestCase):
    def setUp(self) -> None:
        slot_cache.clear()
        self.addCleanup(slot_cache.clear)

    def test_read_once_until_cleared(self) -> None:
        first = slot_cache.current()
        with self.assertNumQueries(0):
            self.assertIs(slot_cache.current(), first)
            get_shard_for_user_id(UUID(int=0))
        Slot.objects.filter(slot=0).update(shard="shard_2", version=2)
        self.assertEqual(get_shard_for_user_id(UUID(int=0)), "shard_1")
        slot_cache.clear()
        self.assertEqual(get_shard_for_user_id(UUID(int=0)), "shard_2")
        self.assertEqual(slot_cache.current().version, 2)

    def test_every_slot_by_its_row(self) -> None:
        for slot in Slot.objects.order_by("?")[:50]:
            user_id = UUID(int=slot.slot << 96)
            self.assertEqual(get_shard_for_user_id(user_id), slot.shard)
            self.assertEqual(get_shard_for_user_id(str(user_id)), slot.shard)

    def test_no_uuid(self) -> None:
        with self.assertRaises(InvalidShardKey):
            get_shard_for_user_id("shard_1")

    def test_a_table_that_is_no_map(self) -> None:
        gap = "1 slots have no owner, the first of them slot 500"
        for change, message in {
            "DELETE FROM sharding_slot": "no slot map yet. Run `manage.py migrate`",
            "DELETE FROM sharding_slot WHERE slot = 500": gap,
            "UPDATE sharding_slot SET slot = 1000 WHERE slot = 500": "1000 is no slot",
            "UPDATE sharding_slot SET shard = 'shard_9' WHERE slot = 0": "slots to shard_9, which",
            "UPDATE sharding_slot SET shard = 'default' WHERE slot = 0": "slots to default, which",
        }.items():
            with self.subTest(change):
                Slot.objects.all().delete()
                slot_cache.fill("default")
                with connection.cursor() as cursor:
                    cursor.execute(change)
                with self.assertRaisesMessage(InvalidSlotMap, message):
                    slot_cache.current()

    def test_a_failure_is_not_kept(self) -> None:
        with connection.cursor() as cursor:
            cursor.execute("UPDATE sharding_slot SET shard = 'shard_9' WHERE slot = 0")
            with self.assertRaises(InvalidSlotMap):
                slot_cache.current()
            cursor.execute("UPDATE sharding_slot SET shard = 'shard_1' WHERE slot = 0")
        self.assertEqual(slot_cache.current().alias(0), "shard_1")

    def test_filling_forgets_the_map_before(self) -> None:
        # As when the databases are flushed between two tests.
        self.assertNotEqual(str(slot_cache.current()), UNEVEN)
        Slot.objects.all().delete()
        with self.settings(SHARD_SLOTS=UNEVEN):
            slot_cache.fill("default")
        self.assertEqual(str(slot_cache.current()), UNEVEN)

    def test_clearing_while_it_is_being_read(self) -> None:
        before = slot_cache.current()
        slot_cache.clear()
        reading, go_on = Event(), Event()

        def read_slowly() -> SlotMap:
            reading.set()
            go_on.wait(timeout=10)
            return before

        with mock.patch.object(slot_cache, "read", read_slowly), ThreadPoolExecutor(2) as threads:
            threads.submit(slot_cache.current)
            reading.wait(timeout=10)
            clearing = threads.submit(slot_cache.clear)
            wait([clearing], timeout=0.1)  # it should not get through yet
            go_on.set()
        self.assertIsNot(slot_cache.current(), before)

    def test_read_in_few_queries(self) -> None:
        with CaptureQueriesContext(connection) as queries:
            slot_cache.current()
        self.assertLessEqual(len(queries), 3)


class OutageTests(TestCase):
    def setUp(self) -> None:
        self.addCleanup(slot_cache.clear)

    def test_known_shards_stay_known_while_the_primary_is_down(self) -> None:
        shard = get_shard_for_user_id(UUID(int=0))
        with server_down("default"):
            self.assertEqual(get_shard_for_user_id(UUID(int=0)), shard)
            slot_cache.clear()
            with self.assertRaisesMessage(DatabaseUnavailable, "Database primary"):
                get_shard_for_user_id(UUID(int=0))
        self.assertEqual(get_shard_for_user_id(UUID(int=0)), shard)
