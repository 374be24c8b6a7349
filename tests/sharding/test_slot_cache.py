"""The slot map's table: filled once by `migrate`, from then on the truth."""

from concurrent.futures import ThreadPoolExecutor, wait
from threading import Event
from time import monotonic
from unittest import mock
from uuid import UUID

from django.core.management import call_command
from django.db import connection, connections, transaction
from django.db.models import F
from django.test import SimpleTestCase, override_settings
from django.test.utils import CaptureQueriesContext

from sharding import bootstrap, conf, get_shard_for_user_id, map_source, slot_cache
from sharding.errors import DatabaseUnavailable, InvalidShardKey, InvalidSlotMap
from sharding.models import Cluster, Move, Slot
from sharding.slots import SlotMap
from tests.analytics.sync.support import in_thread
from tests.outage import scratch_databases
from tests.sharding.ids import id_on
from tests.support import hand_over, server_down
from users.models import Profile

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
        Cluster.objects.update(map_version=2)
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
        self.assertFalse(bootstrap.is_filled())

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
    databases = {"default", "shard_1"}

    def test_no_map_is_stored_elsewhere(self) -> None:
        with scratch_databases("default", "shard_1"):
            migrate(database="shard_1")
            tables = connections["shard_1"].introspection.table_names()
        self.assertNotIn("sharding_slot", tables)
        self.assertIn("users_profile", tables)

    def test_another_database_is_not_even_asked(self) -> None:
        with CaptureQueriesContext(connections["shard_1"]) as queries:
            bootstrap.fill("shard_1")
        self.assertEqual(len(queries), 0)


class CurrentTests(SimpleTestCase):
    """Commits what it changes: the map is read over a connection of its own."""

    databases = {"default"}

    def setUp(self) -> None:
        self.enterContext(scratch_databases("default"))
        migrate("sharding")

    def change(self, slot: int, shard: str) -> None:
        Slot.objects.filter(slot=slot).update(shard=shard)
        Cluster.objects.update(map_version=F("map_version") + 1)

    def test_kept_while_it_is_young(self) -> None:
        with override_settings(SHARDING_MAP_LIFETIME=1000):
            first = slot_cache.current()
            self.change(0, "shard_2")
            self.assertIs(slot_cache.current(), first)
            self.assertEqual(slot_cache.renew().version, 2)
            self.assertEqual(get_shard_for_user_id(UUID(int=0)), "shard_2")

    def test_a_shorter_life_while_slots_change_hands(self) -> None:
        move = Move.objects.create(source="shard_1", target="shard_2", slots=[], state="verified")
        self.addCleanup(move.delete)
        with (
            override_settings(SHARDING_MAP_LIFETIME=1000),
            mock.patch.object(conf, "_SHORTER", float("inf")),
        ):
            self.assertTrue(slot_cache.renew().handing_over)
            self.change(0, "shard_3")
            self.assertEqual(slot_cache.current().owners[0], "shard_3")

    def test_its_age_counts_from_before_it_was_asked_for(self) -> None:
        asked: list[float] = []
        read = slot_cache._source.read

        def read_slowly(known: SlotMap | None = None) -> SlotMap:
            asked.append(monotonic())
            return read(known)

        with mock.patch.object(slot_cache._source, "read", read_slowly):
            slot_cache.renew()
        assert slot_cache._known
        self.assertLessEqual(slot_cache._known[1], asked[0])

    def test_asked_anew_when_it_is_old(self) -> None:
        with override_settings(SHARDING_MAP_LIFETIME=0):
            first = slot_cache.current()
            self.assertIs(slot_cache.current(), first)  # the same version
            self.change(0, "shard_2")
            self.assertEqual(get_shard_for_user_id(UUID(int=0)), "shard_2")
            Slot.objects.filter(slot=0).update(shard="shard_1")
            Cluster.objects.update(map_version=1)  # as of a primary that was restored
            self.assertEqual(get_shard_for_user_id(UUID(int=0)), "shard_1")

    def test_asked_outside_the_callers_transaction(self) -> None:
        with override_settings(SHARDING_MAP_LIFETIME=0), transaction.atomic():
            with connection.cursor() as cursor:
                cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                cursor.execute("SELECT 1")
            slot_cache.current()
            in_thread(lambda: self.change(0, "shard_3"))
            self.assertEqual(get_shard_for_user_id(UUID(int=0)), "shard_3")

    def test_the_former_owner_is_remembered_for_a_while(self) -> None:
        user_id = UUID(int=0)
        slot_cache.current()
        self.assertFalse(slot_cache.formerly_owned("shard_1", user_id))
        self.change(0, "shard_2")
        slot_cache.renew()
        self.assertTrue(slot_cache.formerly_owned("shard_1", user_id))
        self.assertFalse(slot_cache.formerly_owned("shard_2", user_id))

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
                bootstrap.fill("default")
                with connection.cursor() as cursor:
                    cursor.execute(change)
                slot_cache.clear()
                with self.assertRaisesMessage(InvalidSlotMap, message):
                    slot_cache.current()

    def test_a_failure_is_not_kept(self) -> None:
        slot_cache.clear()
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
            bootstrap.fill("default")
        self.assertEqual(str(slot_cache.current()), UNEVEN)

    def test_clearing_while_it_is_being_read(self) -> None:
        before = slot_cache.current()
        slot_cache.clear()
        reading, go_on = Event(), Event()

        def read_slowly() -> SlotMap:
            reading.set()
            go_on.wait(timeout=10)
            return before

        source = slot_cache._source
        slow = mock.patch.object(source, "read", lambda known: read_slowly())
        with slow, ThreadPoolExecutor(2) as threads:
            threads.submit(slot_cache.current)
            reading.wait(timeout=10)
            clearing = threads.submit(slot_cache.clear)
            wait([clearing], timeout=0.1)  # it should not get through yet
            go_on.set()
        self.assertIsNot(slot_cache.current(), before)


class OutageTests(SimpleTestCase):
    databases = "__all__"

    def setUp(self) -> None:
        slot_cache.clear()
        self.addCleanup(slot_cache.clear)

    def test_the_shards_are_asked_while_the_primary_is_down(self) -> None:
        before = slot_cache.current()
        with server_down("default"), override_settings(SHARDING_MAP_LIFETIME=0):
            self.assertIs(slot_cache.current(), before)
            slot_cache.clear()
            self.assertEqual(slot_cache.current().owners, before.owners)
        slot_cache.clear()
        self.assertEqual(slot_cache.current(), before)

    def test_what_they_say_goes_before_what_was_known(self) -> None:
        before = slot_cache.current()
        with server_down("default"), override_settings(SHARDING_MAP_LIFETIME=0):
            self.addCleanup(hand_over, [0], "shard_2", "shard_1")
            hand_over([0], "shard_1", "shard_2")
            self.assertEqual(slot_cache.current().owners, ("shard_2", *before.owners[1:]))
        with mock.patch.object(map_source, "_PAUSE", 0):  # and the primary is believed again
            self.assertEqual(slot_cache.renew(), before)

    def test_nothing_is_read_where_a_move_may_have_been_missed(self) -> None:
        """It could ask neither the primary nor a shard; the shard answers queries again."""
        keys = [id_on("shard_1"), id_on("shard_3")]
        Profile.objects.bulk_create([Profile(user_id=key) for key in keys])
        self.addCleanup(Profile.objects.across_shards().delete)
        everybody = Profile.objects.across_shards(partial=True)
        with server_down("default"), override_settings(SHARDING_MAP_LIFETIME=0):
            with server_down("shard_3"):
                slot_cache.renew()
            self.assertTrue(Profile.objects.filter(user_id=keys[0]).exists())
            with self.assertRaisesMessage(DatabaseUnavailable, "which slots it owns"):
                Profile.objects.filter(user_id=keys[1]).exists()
            self.assertEqual([found.pk for found in everybody], keys[:1])
            with mock.patch.object(map_source, "_PAUSE", 0):
                self.assertTrue(Profile.objects.filter(user_id=keys[1]).exists())

    def test_a_shard_that_is_down_too_keeps_what_it_had(self) -> None:
        before = slot_cache.current()
        with (
            server_down("default"),
            server_down("shard_3"),
            override_settings(SHARDING_MAP_LIFETIME=0),
        ):
            self.assertIs(slot_cache.current(), before)
            slot_cache.clear()
            with self.assertRaisesMessage(DatabaseUnavailable, "Database primary"):
                slot_cache.current()
