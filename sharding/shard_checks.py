"""System checks sharding.E011 to E013 and W014: what moving slots relies on."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from django.apps import AppConfig, apps
from django.core.checks import CheckMessage, Error, Tags, register
from django.core.checks import Warning as CheckWarning
from django.db import connections, models

from sharding import conf, fence, identity, ownership
from sharding.errors import InvalidSlotMap
from sharding.models.sharded import ShardedModel
from sharding.tables import tables

__all__ = ["check_identifiable", "check_shards"]


@register(Tags.models)
def check_identifiable(
    app_configs: Iterable[AppConfig] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """W014: nothing unique contains the shard key, so a move could not identify the rows."""
    chosen = app_configs if app_configs is not None else apps.get_app_configs()
    found = [model for app in chosen for model in app.get_models()]
    return [
        CheckWarning(
            f"{model._meta.label} has nothing unique that contains its shard key "
            f"{model.shard_key!r}, by which its rows are known while their slot moves.",
            hint=f"Add UniqueConstraint(fields=[{model.shard_key!r}, "
            f"{model._meta.pk.name!r}], name=…).",
            obj=model,
            id="sharding.W014",
        )
        for model in found
        if issubclass(model, ShardedModel) and not model._meta.proxy and not _identifiable(model)
    ]


@register(Tags.database)
def check_shards(databases: Sequence[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """E011: another server than the map means. E012: its guard does not guard. E013: a table with
    parts, which could be written past the guard.
    """
    chosen = [alias for alias in conf.shards() if alias in (databases or ())]
    return [message for alias in chosen for message in _check_shard(alias)]


def _check_shard(alias: str) -> Iterator[CheckMessage]:
    with identity.unchecked():
        connections[alias].ensure_connection()
    with connections[alias].cursor() as cursor:
        cursor.execute("SELECT to_regclass('sharding_slotowner') IS NOT NULL")
        if cursor.fetchone() != (True,):
            return  # before the first `migrate`
        if not identity.knows_itself(cursor):
            return  # that could not ask the primary then: the next one sets it up, or says more
        if conf.checks_identity() and (problem := _identity_problem(alias)):
            yield Error(problem, hint="See docs/resharding.md.", id="sharding.E011")
        if not ownership.guard_agrees(cursor) or fence.missing(cursor):
            yield Error(
                f"The guard of {alias} does not keep out writes of slots that it does not own.",
                hint="Run `manage.py shards check --repair`.",
                id="sharding.E012",
            )
        cursor.execute(_PARTS, [[table.name for table in tables()]])
        for (name,) in cursor.fetchall():
            yield Error(
                f"{name} on {alias} is partitioned or inherited from: a write to a part passes by "
                f"the guard.",
                hint="Keep a sharded table whole; its shards are its partitions.",
                id="sharding.E013",
            )


def _identity_problem(alias: str) -> str:
    try:
        return identity.problem(alias, connections[alias].connection)
    except InvalidSlotMap:
        return ""


def _identifiable(model: type[ShardedModel]) -> bool:
    key = getattr(model, "shard_key_attname", model.shard_key)
    names = {model.shard_key, key}
    pk = model._meta.pk
    if names & ({pk.name} | set(getattr(pk, "field_names", ()))):
        return True
    unique = [set(fields) for fields in model._meta.unique_together]
    unique += [{field.name} for field in model._meta.local_fields if field.unique]
    unique += [
        set(each.fields)
        for each in model._meta.constraints
        if isinstance(each, models.UniqueConstraint)
        and each.condition is None
        and each.deferrable is None
    ]
    return any(names & fields and not _nullable(model, fields) for fields in unique)


def _nullable(model: type[ShardedModel], names: set[str]) -> bool:
    return any(field.null for field in model._meta.concrete_fields if field.name in names)


_PARTS = """
    SELECT relname FROM pg_class c WHERE relnamespace = current_schema()::regnamespace
      AND relname = ANY(%s) AND (relkind = 'p' OR EXISTS
        (SELECT FROM pg_inherits WHERE inhparent = c.oid OR inhrelid = c.oid))
"""
