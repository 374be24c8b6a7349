"""Which slots a rebalance moves."""

from random import Random
from unittest import TestCase, mock

from hypothesis import given, settings
from hypothesis import strategies as st

from sharding.moves import planning
from sharding.moves.planning import Planned, even_out
from sharding.slots import SlotMap
from sharding.tables import tables

THREE = SlotMap.even(["shard_1", "shard_2", "shard_3"])
FOUR = ["shard_1", "shard_2", "shard_3", "shard_4"]


def after(slot_map: SlotMap, planned: list[Planned]) -> SlotMap:
    owners = list(slot_map.owners)
    for move in planned:
        for slot in move.slots:
            assert owners[slot] == move.source
            owners[slot] = move.target
    return SlotMap(tuple(owners))


def loads(slot_map: SlotMap, weights: dict[int, int]) -> dict[str, int]:
    return {a: sum(weights.get(s, 0) for s in slot_map.slots(a)) for a in slot_map.aliases}


class EvenOutTests(TestCase):
    def test_a_new_shard_gets_its_share_of_each(self) -> None:
        planned = even_out(THREE, dict.fromkeys(range(1000), 10), FOUR)
        self.assertEqual(
            {(m.source, m.target) for m in planned}, {(s, "shard_4") for s in FOUR[:3]}
        )
        self.assertEqual(len(planned), 3)
        for alias in FOUR:
            self.assertAlmostEqual(len(after(THREE, planned).slots(alias)), 250, delta=1)

    def test_ranges_stay_ranges(self) -> None:
        for move in even_out(THREE, {}, FOUR):
            self.assertEqual(list(move.slots), list(range(move.slots[0], move.slots[-1] + 1)))

    def test_by_rows_and_not_by_slots(self) -> None:
        weights = {slot: 100 if slot < 100 else 1 for slot in range(1000)}
        planned = even_out(THREE, weights, FOUR[:3])
        spread = loads(after(THREE, planned), weights).values()
        self.assertLess(max(spread) - min(spread), 201)

    def test_even_shards_are_left_alone(self) -> None:
        self.assertEqual(even_out(THREE, dict.fromkeys(range(1000), 10), FOUR[:3]), [])

    def test_one_that_is_emptied_keeps_nothing(self) -> None:
        planned = even_out(THREE, dict.fromkeys(range(1000), 10), FOUR[:2])
        self.assertEqual(after(THREE, planned).aliases, {"shard_1", "shard_2"})
        self.assertEqual(len(planned), 2)

    def test_a_large_table_is_counted_by_a_sample(self) -> None:
        with (
            mock.patch.object(planning, "value", return_value=20_000_000),
            mock.patch.object(planning, "rows") as rows,
        ):
            planning._count("shard_1", tables()[0])
        query = rows.call_args.args[1].as_string()
        self.assertIn("count(*) * 20.0", query)
        self.assertIn("TABLESAMPLE SYSTEM (5.0)", query)

    @settings(max_examples=50, deadline=None)
    @given(
        st.integers(0, 2**32),
        st.integers(0, 1000),
        st.sets(st.sampled_from(FOUR), min_size=1),
    )
    def test_any_map(self, seed: int, most: int, sharing: set[str]) -> None:
        random = Random(seed)
        weights = [random.randint(0, most) for _ in range(1000)]
        owners = [random.choice(FOUR[:3]) for _ in range(1000)]
        slot_map, weight = SlotMap(tuple(owners)), dict(enumerate(weights))
        planned = even_out(slot_map, weight, sorted(sharing))
        result = after(slot_map, planned)
        self.assertLessEqual(result.aliases, sharing)
        spread = [loads(result, weight).get(alias, 0) for alias in sharing]
        # No closer than whole slots allow, and a slot more for each shard that gave.
        self.assertLessEqual(max(spread) - min(spread), 1001 * (1 + len(FOUR)))
