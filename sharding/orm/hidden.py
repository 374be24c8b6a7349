"""Rows that stand on two shards while their slot moves: counted once, as one map says for all."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.db.models.lookups import Lookup
from django.db.models.sql import Query
from django.db.models.sql.where import AND
from psycopg.sql import SQL

from sharding.slot_sql import slot_of
from sharding.slots import SlotMap

__all__ = ["params_on", "within_slots", "without_hidden"]


@dataclass(frozen=True)
class _Hidden:
    """Stands among the parameters of one statement for all shards: each is sent its own slots."""

    slots: tuple[tuple[str, tuple[int, ...]], ...]

    def on(self, alias: str) -> list[int]:
        return list(dict(self.slots).get(alias, ()))


class _SlotLookup(Lookup):
    prepare_rhs = False
    template = "({slot} = ANY(%s))"

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, list[Any]]:
        column, params = self.process_lhs(compiler, connection)
        slot = slot_of(SQL(column)).as_string()
        rhs = list(self.rhs) if isinstance(self.rhs, tuple) else self.rhs
        return self.template.format(slot=slot), [*params, rhs]


class _InSlots(_SlotLookup):
    """The rows of some slots."""


class _NotHidden(_SlotLookup):
    """All rows but those that count on another shard."""

    template = "(NOT ({slot} = ANY(%s)))"


def without_hidden(query: Query, slot_map: SlotMap, aliases: Iterable[str]) -> Query:
    """Return the query without the rows that, by this map, count on another shard."""
    hidden = {alias: slot_map.hidden[alias] for alias in aliases if alias in slot_map.hidden}
    return _restricted(query, _NotHidden, _frozen(hidden)) if hidden else query


def within_slots(query: Query, slots: Iterable[int]) -> Query:
    """Return the query for the rows of some slots only."""
    return _restricted(query, _InSlots, tuple(sorted(slots)))


def params_on(alias: str, params: Sequence[Any]) -> Sequence[Any]:
    """Return the parameters of a statement as they are for one shard."""
    if not any(isinstance(each, _Hidden) for each in params):
        return params
    return [each.on(alias) if isinstance(each, _Hidden) else each for each in params]


def _frozen(hidden: Mapping[str, frozenset[int]]) -> _Hidden:
    return _Hidden(tuple((alias, tuple(sorted(slots))) for alias, slots in hidden.items()))


def _restricted(query: Query, lookup: type[_SlotLookup], slots: Any) -> Query:
    restricted = query.clone()
    model: Any = query.model
    key = model._meta.get_field(model.shard_key)
    column = key.get_col(restricted.get_initial_alias())
    restricted.where.add(lookup(column, slots), AND)
    return restricted
