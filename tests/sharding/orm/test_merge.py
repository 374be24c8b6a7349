"""Merging rows of several shards, against a comparison that is written out as PostgreSQL's."""

from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from functools import cmp_to_key, partial
from itertools import chain
from typing import Any

from django.test import SimpleTestCase
from hypothesis import given
from hypothesis import strategies as st

from sharding.orm.merge import (
    Owned,
    SortTerm,
    drop_repeated,
    group_rows,
    merge_streams,
    sort_rows,
    sortable,
)
from tests.sharding.orm import examples

_NAN = float("nan")
# The values of each column, from least to greatest as PostgreSQL has it; NULL is apart from them.
_COLUMNS: list[list[Any]] = [
    [float("-inf"), -1.5, 0.0, 2.0, float("inf"), _NAN],
    [Decimal(-3), Decimal("0.10"), Decimal(7), Decimal("NaN")],
    ["", "A", "Z", "a", "é", "\uffee", "😀"],
    [False, True],
]


def rows() -> st.SearchStrategy[tuple[Any, ...]]:
    return st.tuples(*(st.sampled_from([None, *column]) for column in _COLUMNS))


def terms() -> st.SearchStrategy[list[SortTerm]]:
    indexes = st.integers(0, len(_COLUMNS) - 1)
    return st.lists(st.builds(SortTerm, indexes, st.booleans(), st.booleans()), min_size=1)


@st.composite
def shards(draw: Callable[..., Any]) -> list[list[Owned]]:
    """Three shards' rows. The number at each one's end makes it different from all others."""
    answers = draw(st.tuples(*[st.lists(rows(), max_size=6)] * 3))
    numbers = iter(range(100))
    return [
        [(f"shard_{place}", (*row, next(numbers))) for row in answer]
        for place, answer in enumerate(answers)
    ]


def rank(index: int, value: Any) -> int:
    same = [sortable(value) == sortable(each) for each in _COLUMNS[index]]
    return same.index(True)


def compare(by: Sequence[SortTerm], one: Owned, other: Owned) -> int:
    """Negative, 0 or positive as ORDER BY puts one row before, beside or after the other."""
    for term in by:
        left, right = one[1][term.index], other[1][term.index]
        if (left is None) != (right is None):
            return -1 if (left is None) == term.nulls_first else 1
        if left is not None and rank(term.index, left) != rank(term.index, right):
            less = rank(term.index, left) < rank(term.index, right)
            return -1 if less != term.descending else 1
    return 0


class MergeTests(SimpleTestCase):
    @examples(300)
    @given(shards(), terms())
    def test_sort(self, answers: list[list[Owned]], by: list[SortTerm]) -> None:
        together = list(chain(*answers))
        expected = sorted(together, key=cmp_to_key(partial(compare, by)))
        sort_rows(together, by)
        self.assertEqual(together, expected)

    @examples(300)
    @given(shards(), terms())
    def test_merge(self, answers: list[list[Owned]], by: list[SortTerm]) -> None:
        key = cmp_to_key(partial(compare, by))
        streams = [sorted(answer, key=key) for answer in answers]
        self.assertEqual(list(merge_streams(streams, by)), sorted(chain(*streams), key=key))

    @examples(200)
    @given(shards(), st.sets(st.integers(0, len(_COLUMNS) - 1), min_size=1))
    def test_drop_repeated(self, answers: list[list[Owned]], indexes: set[int]) -> None:
        by = [SortTerm(index) for index in indexes]
        kept: list[Owned] = []
        for owned in chain(*answers):
            if all(compare(by, owned, other) for other in kept):
                kept.append(owned)
        self.assertEqual(list(drop_repeated(chain(*answers), sorted(indexes))), kept)

    @examples(200)
    @given(shards())
    def test_group_rows(self, answers: list[list[Owned]]) -> None:
        folded = {1, len(_COLUMNS)}
        by = [SortTerm(index) for index in range(len(_COLUMNS)) if index not in folded]
        groups: list[tuple[Owned, list[Any]]] = []
        for owned in chain(*answers):
            for first, members in groups:
                if not compare(by, owned, first):
                    members.append(owned[1])
                    break
            else:
                groups.append((owned, [owned[1]]))
        expected = [(first[0], members) for first, members in groups]
        self.assertEqual(group_rows(chain(*answers), folded), expected)

    def test_a_merge_reads_no_further_than_it_is_asked(self) -> None:
        read: list[int] = []

        def stream(numbers: Sequence[int]) -> Iterator[Owned]:
            for number in numbers:
                read.append(number)
                yield "shard_1", (number,)

        merged = merge_streams([stream([1, 2, 6]), stream([3, 4, 5])], [SortTerm(0)])
        self.assertEqual(next(merged)[1], (1,))
        self.assertEqual(sorted(read), [1, 3])
