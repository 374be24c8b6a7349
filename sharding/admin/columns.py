"""Columns of lists that no table has."""

from typing import Any

from django.db.models import F, Func, IntegerField
from psycopg.sql import SQL

from sharding import conf, slot_cache
from sharding.slot_sql import slot_of

__all__ = ["ShardNumber"]


class ShardNumber(Func):
    """The place of a row's shard among all, by its key: to order lists by it."""

    output_field = IntegerField()

    def resolve_expression(self, query: Any = None, *args: Any, **kwargs: Any) -> Any:
        if query and not self.source_expressions:
            return ShardNumber(F(query.model.shard_key)).resolve_expression(query, *args, **kwargs)
        return super().resolve_expression(query, *args, **kwargs)

    def as_sql(self, compiler: Any, connection: Any, *args: Any, **context: Any) -> Any:
        column, _ = compiler.compile(self.source_expressions[0])
        places = {alias: place for place, alias in enumerate(conf.shards())}
        by_slot = [places[owner] for owner in slot_cache.current().owners]
        return f"(%s::int[])[{slot_of(SQL(column)).as_string()} + 1]", [by_slot]
