"""The slot map: one owner for each slot, in text and back, never changed in place."""

import copy
import dataclasses
import pickle
from itertools import chain

from django.test import SimpleTestCase
from hypothesis import given
from hypothesis import strategies as st

from sharding.errors import InvalidSlotMap, ShardingError
from sharding.hashing import SLOTS
from sharding.slots import SlotMap

THREE = "shard_1=0-333,shard_2=334-666,shard_3=667-999"

aliases = st.integers(1, 40).map("shard_{}".format)
runs = st.tuples(aliases, st.integers(1, 400)).map(lambda run: [run[0]] * run[1])
owners = (
    st.lists(runs, min_size=1)
    .map(lambda lists: [*chain(*lists)] * SLOTS)
    .map(lambda repeated: repeated[:SLOTS])
)


class ParseTests(SimpleTestCase):
    def test_ranges_include_both_ends(self) -> None:
        slot_map = SlotMap.parse(THREE)
        found = [slot_map.alias(slot) for slot in (0, 333, 334, 666, 667, 999)]
        expected = ["shard_1", "shard_1", "shard_2", "shard_2", "shard_3", "shard_3"]
        self.assertEqual(found, expected)
        self.assertEqual(slot_map.aliases, {"shard_1", "shard_2", "shard_3"})

    def test_order_spaces_and_single_slots(self) -> None:
        slot_map = SlotMap.parse(" shard_2 = 1 - 999 ,shard_1=0-0")
        self.assertEqual(str(slot_map), "shard_1=0-0,shard_2=1-999")

    @given(owners)
    def test_text_and_back(self, owners: list[str]) -> None:
        slot_map = SlotMap(tuple(owners))
        self.assertEqual(SlotMap.parse(str(slot_map)), slot_map)

    def test_gaps_say_where_the_first_is(self) -> None:
        for text, message in {
            "shard_1=0-998": "1 slots have no owner, the first of them slot 999",
            "shard_1=1-999": "1 slots have no owner, the first of them slot 0",
            "shard_1=0-99,shard_2=200-999": "100 slots have no owner, the first of them slot 100",
        }.items():
            with self.subTest(text), self.assertRaisesMessage(InvalidSlotMap, message):
                SlotMap.parse(text)

    def test_overlaps_name_both_owners(self) -> None:
        message = "Slot 333 is given to both shard_1 and shard_2"
        with self.assertRaisesMessage(InvalidSlotMap, message):
            SlotMap.parse("shard_1=0-333,shard_2=333-999")
        with self.assertRaisesMessage(InvalidSlotMap, "Slot 0 is given to both"):
            SlotMap.parse("shard_1=0-999,shard_1=0-0")

    def test_what_is_no_range(self) -> None:
        for text in (
            "",
            ",",
            f"{THREE},",
            "shard_1",
            "shard_1=0",
            "shard_1=-5-999",
            "shard_1=0-1000",
            "shard_1=0-999999999999",
            "shard_1=999-0",
            "shard_1=0-9.99",
            "shard_1=0-999;shard_2=0-0",
            "shard_1=0-٩٩٩",
            "=0-999",
        ):
            with self.subTest(text), self.assertRaisesMessage(InvalidSlotMap, "no range of slots"):
                SlotMap.parse(text)

    @given(st.text("shard_12=-,09 ", max_size=30) | st.text())
    def test_any_other_text_raises(self, text: str) -> None:
        try:
            slot_map = SlotMap.parse(text)
        except InvalidSlotMap:
            return
        self.assertEqual(len(slot_map.owners), SLOTS)


class EvenTests(SimpleTestCase):
    def test_the_default_with_three_shards(self) -> None:
        slot_map = SlotMap.even(["shard_1", "shard_2", "shard_3"])
        self.assertEqual(str(slot_map), THREE)

    def test_from_one_to_a_thousand_shards(self) -> None:
        for count in range(1, SLOTS + 1):
            shards = [f"shard_{number}" for number in range(1, count + 1)]
            owners = SlotMap.even(shards).owners
            sizes = [owners.count(shard) for shard in shards] if count < 50 else []
            # One range each, in the given order.
            self.assertEqual(list(dict.fromkeys(owners)), shards)
            self.assertEqual(len(owners), SLOTS)
            self.assertLessEqual(max(sizes, default=0) - min(sizes, default=0), 1)

    def test_without_a_shard(self) -> None:
        with self.assertRaisesMessage(InvalidSlotMap, "DATABASE_SHARD_1_URL"):
            SlotMap.even([])


class SlotMapTests(SimpleTestCase):
    def test_pairs_in_any_order(self) -> None:
        pairs = [(slot, f"shard_{slot % 2}") for slot in range(SLOTS)]
        slot_map = SlotMap.from_pairs(reversed(pairs), version=7)
        self.assertEqual([*enumerate(slot_map.owners)], pairs)
        self.assertEqual(slot_map.version, 7)

    def test_pairs_that_are_no_map(self) -> None:
        pairs = [(slot, "shard_1") for slot in range(SLOTS)]
        for wrong in (pairs[:-1], [*pairs, (SLOTS, "shard_1")], [*pairs, (0, "shard_2")], []):
            with self.subTest(count=len(wrong)), self.assertRaises(InvalidSlotMap):
                SlotMap.from_pairs(wrong)

    def test_a_map_has_every_slot(self) -> None:
        for count in (0, SLOTS - 1, SLOTS + 1):
            with self.subTest(count), self.assertRaisesMessage(InvalidSlotMap, f"has {count}"):
                SlotMap(("shard_1",) * count)

    def test_a_number_that_is_no_slot(self) -> None:
        slot_map = SlotMap.even(["shard_1"])
        for slot in (-1, SLOTS):
            with self.subTest(slot), self.assertRaisesMessage(InvalidSlotMap, f"{slot} is no slot"):
                slot_map.alias(slot)

    def test_unknown_aliases_are_named(self) -> None:
        slot_map = SlotMap.parse(THREE)
        slot_map.require_known(["shard_1", "shard_2", "shard_3", "shard_4"])
        with self.assertRaisesMessage(InvalidSlotMap, "slots to shard_2, shard_3, which DATABASES"):
            slot_map.require_known(["shard_1"])

    def test_cannot_be_changed(self) -> None:
        slot_map = SlotMap.parse(THREE)
        with self.assertRaises(dataclasses.FrozenInstanceError):
            slot_map.version = 2  # type: ignore[misc]
        with self.assertRaises(TypeError):
            slot_map.owners[0] = "shard_2"  # type: ignore[index]
        with self.assertRaises(AttributeError):
            slot_map.aliases.add("shard_4")  # type: ignore[attr-defined]

    def test_equal_maps(self) -> None:
        slot_map = SlotMap.parse(THREE)
        for same in (SlotMap.parse(THREE), copy.deepcopy(slot_map), self._pickled(slot_map)):
            self.assertEqual(same, slot_map)
            self.assertEqual(hash(same), hash(slot_map))
        self.assertNotEqual(dataclasses.replace(slot_map, version=2), slot_map)

    def _pickled(self, slot_map: SlotMap) -> SlotMap:
        copied = pickle.loads(pickle.dumps(slot_map))
        assert isinstance(copied, SlotMap)
        return copied

    def test_the_error(self) -> None:
        self.assertTrue(issubclass(InvalidSlotMap, ShardingError))
        self.assertTrue(issubclass(InvalidSlotMap, ValueError))
