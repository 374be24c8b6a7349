"""A first load of many rows goes into a table without indexes, as pg_restore's does.

They are built when all rows are there: two of them take more time row by row than all the rest. The
key stays, so that whatever else is written meanwhile finds its rows.
"""

from django.db import connections, transaction
from django.db.models import QuerySet
from psycopg.errors import LockNotAvailable
from psycopg.sql import SQL

from analytics.models import SyncCheckpoint
from analytics.sync.described import Source
from analytics.sync.errors import SyncFailed, naming, sqlstate
from sharding import conf

__all__ = ["are_dropped", "build", "drop"]


def drop(source: Source) -> None:
    """Drop the indexes of an empty table of copies, and note it beside them.

    Not where a role that does not own the table syncs, nor where somebody uses it just now.
    """
    try:
        with naming(conf.analytics()), transaction.atomic(using=conf.analytics()):
            if _may_drop(source):
                _drop(source)
    except SyncFailed as error:
        if sqlstate(error) != LockNotAvailable.sqlstate:
            raise


def are_dropped(source: Source) -> bool:
    """Say whether indexes wait to be built."""
    with naming(conf.analytics()):
        return _checkpoint(source).filter(dropped_indexes__isnull=False).exists()


def build(source: Source) -> None:
    """Build those that were dropped and that the model still has."""
    alias, model = conf.analytics(), source.synced.target
    with naming(alias), transaction.atomic(using=alias):
        noted = _checkpoint(source).select_for_update().first()
        missing = set(noted.dropped_indexes or () if noted else ()) - _existing(source)
        with connections[alias].schema_editor() as editor:
            for index in model._meta.indexes:
                if index.name in missing:
                    editor.add_index(model, index)
        _checkpoint(source).update(dropped_indexes=None)


def _may_drop(source: Source) -> bool:
    with connections[conf.analytics()].cursor() as cursor:
        cursor.execute(
            "SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = %s::regclass",
            [source.target.as_string()],
        )
        if cursor.fetchone() != (True,):
            return False
        cursor.execute("SET LOCAL lock_timeout = '2s'")
        cursor.execute(SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(source.target))
        cursor.execute(SQL("SELECT EXISTS (SELECT FROM {})").format(source.target))
        return cursor.fetchone() == (False,)


def _drop(source: Source) -> None:
    model, existing = source.synced.target, _existing(source)
    with connections[conf.analytics()].schema_editor() as editor:
        for index in model._meta.indexes:
            if index.name in existing:
                editor.remove_index(model, index)
    # All of them: where there is none, an earlier load was forgotten before it was complete.
    names = {"dropped_indexes": [index.name for index in model._meta.indexes]}
    SyncCheckpoint.objects.update_or_create(source=source.name, defaults=names)


def _existing(source: Source) -> set[str]:
    connection = connections[conf.analytics()]
    with connection.cursor() as cursor:
        table = source.synced.target._meta.db_table
        return set(connection.introspection.get_constraints(cursor, table))


def _checkpoint(source: Source) -> QuerySet[SyncCheckpoint]:
    return SyncCheckpoint.objects.filter(source=source.name)
