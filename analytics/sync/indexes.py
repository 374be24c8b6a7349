"""A first load of many rows goes into a table without indexes, and without its key.

They are built when all rows are there: row by row, they take more time than all the rest. Whoever
writes to the table meanwhile and needs the key builds them first, and the load goes on with them.
"""

from collections.abc import Iterable

from django.db import IntegrityError, connections, models, transaction
from django.db.backends.utils import CursorWrapper
from psycopg.errors import DependentObjectsStillExist, LockNotAvailable
from psycopg.sql import SQL, Identifier

from analytics.models import SyncCheckpoint
from analytics.sync.described import Source
from analytics.sync.errors import SyncFailed, naming, sqlstate
from sharding import conf

__all__ = ["are_dropped", "build", "drop"]

# Somebody uses the table just now; or another table refers to its key.
_NOT_NOW = {LockNotAvailable.sqlstate, DependentObjectsStillExist.sqlstate}


def drop(source: Source) -> None:
    """Drop the key and the indexes of an empty table of copies, and note it beside them.

    Not where a role that does not own the table syncs, nor where they cannot be dropped just now.
    """
    alias = conf.analytics()
    try:
        with naming(alias), transaction.atomic(using=alias), connections[alias].cursor() as cursor:
            if _may_drop(cursor, source):
                _drop(cursor, source)
    except SyncFailed as error:
        if sqlstate(error) not in _NOT_NOW:
            raise


def are_dropped(source: Source) -> bool:
    """Say whether the table of copies waits for its key and indexes, whichever source's load."""
    with naming(conf.analytics()):
        return bool(_notes(source))


def build(source: Source) -> None:
    """Build the key, and the indexes that were dropped and that the model still has."""
    alias, model = conf.analytics(), source.synced.target
    with naming(alias), transaction.atomic(using=alias), connections[alias].cursor() as cursor:
        # Against other writers, and others who build; not against readers. Before the checkpoint,
        # as a batch takes them.
        lock = SQL("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE").format(source.target)
        cursor.execute(lock)
        notes = _notes(source)
        existing = connections[alias].introspection.get_constraints(cursor, model._meta.db_table)
        if notes and not any(each["primary_key"] for each in existing.values()):
            _build_key(cursor, source)
        noted = {name for note in notes for name in note.dropped_indexes or ()}
        with connections[alias].schema_editor() as editor:
            for index in _indexes(model, noted - existing.keys()):
                editor.add_index(model, index)
        done = SyncCheckpoint.objects.filter(pk__in=[note.pk for note in notes])
        done.update(dropped_indexes=None)


def _may_drop(cursor: CursorWrapper, source: Source) -> bool:
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


def _drop(cursor: CursorWrapper, source: Source) -> None:
    connection, model = connections[conf.analytics()], source.synced.target
    existing = connection.introspection.get_constraints(cursor, model._meta.db_table)
    for name in (name for name, each in existing.items() if each["primary_key"]):
        statement = SQL("ALTER TABLE {} DROP CONSTRAINT {}")
        cursor.execute(statement.format(source.target, Identifier(name)))
    with connection.schema_editor() as editor:
        for index in _indexes(model, existing):
            editor.remove_index(model, index)
    # All of them: where there is none, an earlier load was forgotten before it was complete.
    names = {"dropped_indexes": [index.name for index in model._meta.indexes]}
    SyncCheckpoint.objects.update_or_create(source=source.name, defaults=names)


def _build_key(cursor: CursorWrapper, source: Source) -> None:
    """Build the primary key. Readers wait for the last step only, which takes no time."""
    name = Identifier(f"{source.synced.target._meta.db_table}_pkey")
    names = {"table": source.target, "key": source.target_key, "name": name}
    unique = SQL("CREATE UNIQUE INDEX {name} ON {table} ({key})").format(**names)
    try:
        with transaction.atomic(using=conf.analytics()):
            cursor.execute(unique)
    except IntegrityError:
        # Rows that moved to a later page while the pages were read. None of their copies stays:
        # the load counts at its end, and finds that rows are missing.
        cursor.execute(_DELETE_DOUBLED.format(**names))
        cursor.execute(unique)
    use = SQL("ALTER TABLE {table} ADD CONSTRAINT {name} PRIMARY KEY USING INDEX {name}")
    cursor.execute(use.format(**names))


_DELETE_DOUBLED = SQL(
    "DELETE FROM {table} WHERE {key} IN"
    " (SELECT {key} FROM {table} GROUP BY {key} HAVING count(*) > 1)"
)


def _indexes(model: type[models.Model], names: Iterable[str]) -> list[models.Index]:
    return [index for index in model._meta.indexes if index.name in names]


def _notes(source: Source) -> list[SyncCheckpoint]:
    """The checkpoints, of all sources with this target, that name what was dropped."""
    noted = SyncCheckpoint.objects.filter(dropped_indexes__isnull=False)
    return [note for note in noted if note.source.partition("/")[0] == source.synced.name]
