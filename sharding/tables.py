"""The tables that live on shards."""

from dataclasses import dataclass
from typing import Any

from django.apps import apps
from django.db import models
from psycopg.sql import Composed, Identifier

from sharding.models.sharded import ShardedModel
from sharding.slot_sql import slot_of

__all__ = ["Table", "tables"]


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
