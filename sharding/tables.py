"""The tables that live on shards, and a key's slot as SQL."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from django.apps import apps
from django.db import models
from psycopg.sql import SQL, Composable, Composed, Identifier, Literal

from sharding.hashing import SLOTS
from sharding.models.sharded import ShardedModel

__all__ = ["Table", "in_slots", "ranges", "slot_of", "tables"]


@dataclass(frozen=True)
class Table:
    """A sharded model's table: its name, the column of its shard key, all columns, the pk's."""

    name: str
    key: str
    columns: tuple[str, ...]
    pk: tuple[str, ...]

    @property
    def sql(self) -> Identifier:
        return Identifier(self.name)

    @property
    def slot(self) -> Composed:
        """The slot of a row, as SQL."""
        return slot_of(Identifier(self.key))


def tables() -> list[Table]:
    """Every sharded table, one after those that its foreign keys refer to."""
    waiting = {
        model._meta.db_table: model
        for model in apps.get_models()
        if issubclass(model, ShardedModel) and model._meta.managed and not model._meta.proxy
    }
    ordered: list[Table] = []
    while waiting:
        free = [name for name, model in waiting.items() if not _referred(model) & waiting.keys()]
        for name in free or list(waiting):  # those that refer to each other in any order
            ordered.append(_table(waiting.pop(name)))
    return ordered


def slot_of(key: Composable) -> Composed:
    """The slot of a UUID, as `hashing.slot_for` computes it: of built-in functions alone, for
    nothing else may stand in a publication's filter.
    """
    return SQL(
        "((((get_byte(uuid_send({key}), 0)::bigint << 24) | (get_byte(uuid_send({key}), 1) << 16)"
        " | (get_byte(uuid_send({key}), 2) << 8) | get_byte(uuid_send({key}), 3)) % {n})::int)"
    ).format(key=key, n=Literal(SLOTS))


def in_slots(slot: Composable, slots: Iterable[int]) -> Composed:
    """Say in SQL whether a slot is one of these."""
    parts = [
        SQL("{} BETWEEN {} AND {}").format(slot, Literal(first), Literal(last))
        for first, last in ranges(slots)
    ]
    return SQL("({})").format(SQL(" OR ").join(parts or [SQL("false")]))


def ranges(slots: Iterable[int]) -> list[tuple[int, int]]:
    """Return the slots as ranges, both ends included."""
    runs = groupby(enumerate(sorted(set(slots))), key=lambda pair: pair[1] - pair[0])
    members: list[Sequence[int]] = [[slot for _, slot in run] for _, run in runs]
    return [(run[0], run[-1]) for run in members]


def _referred(model: type[models.Model]) -> set[str]:
    targets = {
        field.remote_field.model._meta.db_table
        for field in model._meta.concrete_fields
        if field.remote_field
    }
    return targets - {model._meta.db_table}


def _table(model: type[ShardedModel]) -> Table:
    key: Any = model._meta.get_field(model.shard_key)
    pk: Any = model._meta.pk
    return Table(
        name=model._meta.db_table,
        key=key.column,
        columns=tuple(field.column for field in model._meta.concrete_fields if field.column),
        pk=tuple(field.column for field in getattr(pk, "fields", None) or [pk]),
    )
