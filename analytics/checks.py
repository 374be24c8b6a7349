"""System checks analytics.E001 to E003: what would copy wrong values, or leave copies stale."""

from collections.abc import Iterator
from typing import Any

from django.apps import apps
from django.core.checks import CheckMessage, Error, Tags, register
from psycopg.sql import Identifier

from analytics.sync.described import SYNCED, Synced, column_type
from sharding import conf
from sharding.change_log import Change

__all__ = ["check_synced"]


@register(Tags.models)
def check_synced(**kwargs: Any) -> list[CheckMessage]:
    """E001: a column and its copy differ in type. E002: no trigger logs changes of a column.
    E003: a log that nobody reads, or several."""
    described = [each for synced in SYNCED for check in (_types, _logged) for each in check(synced)]
    return [*described, *_logs()]


def _types(synced: Synced) -> Iterator[CheckMessage]:
    for name, copy in synced.columns.items():
        fields: list[Any] = [
            synced.source._meta.get_field(name),
            synced.target._meta.get_field(copy),
        ]
        here, there = (column_type(field, conf.analytics()) for field in fields)
        if here != there:
            yield Error(
                f"{synced.name}: {name} is {here}, but its copy {copy} is {there}.",
                hint="They are copied byte by byte: give both the same type.",
                obj=synced.target,
                id="analytics.E001",
            )


def _logged(synced: Synced) -> Iterator[CheckMessage]:
    triggers = getattr(synced.source._meta, "triggers", ())
    updating = [trigger.func for trigger in triggers if trigger.name == "log_update"]
    log = Identifier(synced.log._meta.db_table).as_string()
    for name in synced.columns:
        field: Any = synced.source._meta.get_field(name)
        column = Identifier("n", field.column).as_string()
        if not any(log in func and column in func for func in updating):
            yield Error(
                f"{synced.name}: {name} is copied, but no trigger logs its changes in {log}.",
                hint="Name its column in change_triggers(), and run makemigrations and migrate.",
                obj=synced.source,
                id="analytics.E002",
            )


def _logs() -> Iterator[CheckMessage]:
    for log in apps.get_models():
        readers = [synced.name for synced in SYNCED if synced.log is log]
        if issubclass(log, Change) and len(readers) != 1:
            yield Error(
                f"The log {log._meta.label} is read for {' and '.join(readers) or 'nothing'}.",
                hint="Read by nobody it grows without end; of two, one misses what the other read. "
                "Each in SYNCED needs a log of its own; with one that is removed, remove its log "
                "and its triggers.",
                obj=log,
                id="analytics.E003",
            )
