"""Rows of several shards, made those of one database. Pure: knows neither Django nor SQL."""

from collections.abc import Container, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from heapq import merge as heap_merge
from typing import Any

__all__ = ["SortTerm", "drop_repeated", "group_rows", "merge_streams", "sort_rows", "sortable"]

Row = Sequence[Any]
Owned = tuple[str, Row]  # the shard that a row came from, and the row


@dataclass(frozen=True)
class SortTerm:
    """One column of an ORDER BY: where it stands in the rows, and how it is sorted."""

    index: int
    descending: bool = False
    nulls_first: bool = False


def sort_rows(rows: list[Owned], terms: Sequence[SortTerm]) -> None:
    """Sort in place as PostgreSQL does: stable, one pass a term, the last term first."""
    for term in reversed(terms):
        rows.sort(key=partial(_ranked, term), reverse=term.descending)


def merge_streams(streams: Iterable[Iterable[Owned]], terms: Sequence[SortTerm]) -> Iterator[Owned]:
    """Merge sorted streams into one, holding one row of each."""
    reverse = all(term.descending for term in terms)
    return heap_merge(*streams, key=partial(_sort_key, terms, reverse), reverse=reverse)


def drop_repeated(rows: Iterable[Owned], indexes: Sequence[int]) -> Iterator[Owned]:
    """Keep the first of all rows that agree in the columns `indexes`."""
    seen: set[Hashable] = set()
    for owned in rows:
        key = tuple(sortable(owned[1][index]) for index in indexes)
        if key not in seen:
            seen.add(key)
            yield owned


def group_rows(rows: Iterable[Owned], folded: Container[int]) -> list[tuple[str, list[Row]]]:
    """Bring together the rows that agree in every column but the folded ones.

    Each group carries the shard that it was first seen on.
    """
    groups: dict[Hashable, tuple[str, list[Row]]] = {}
    for owner, row in rows:
        key = tuple(sortable(value) for index, value in enumerate(row) if index not in folded)
        groups.setdefault(key, (owner, []))[1].append(row)
    return list(groups.values())


def sortable(value: Any) -> Any:
    """Return what Python sorts and groups as PostgreSQL does the value, which is not NULL."""
    return value if value == value else _NAN


def _ranked(term: SortTerm, owned: Owned) -> tuple[bool, Any]:
    return _rank(term, owned, reverse=term.descending)


def _sort_key(terms: Sequence[SortTerm], reverse: bool, owned: Owned) -> list[Any]:
    """What the row sorts by, where `reverse` turns the whole order round."""
    parts: list[Any] = []
    for term in terms:
        rank, value = _rank(term, owned, reverse=reverse)
        parts += rank, value if term.descending == reverse else _Descending(value)
    return parts


def _rank(term: SortTerm, owned: Owned, *, reverse: bool) -> tuple[bool, Any]:
    """NULL's place before or after all values, and a value's place among them."""
    value = owned[1][term.index]
    if value is None:
        return (not term.nulls_first) != reverse, 0
    return term.nulls_first != reverse, sortable(value)


class _NotANumber:
    """NaN to PostgreSQL: equal to itself, larger than every number."""

    __slots__ = ()

    def __lt__(self, other: object) -> bool:
        return False

    def __gt__(self, other: object) -> bool:
        return other is not self


_NAN = _NotANumber()


class _Descending:
    """A value that sorts the other way round."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __lt__(self, other: "_Descending") -> bool:
        return other.value < self.value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Descending) and self.value == other.value

    __hash__ = None  # type: ignore[assignment]
