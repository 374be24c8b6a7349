"""A log of the keys whose rows were changed, filled by triggers; a queue that a sync empties.

Keys only, no payload: whoever reads the log reads the rows as they are by then. By triggers of
statements, not by signals, so that bulk statements, raw SQL and psql are caught too.
"""

from collections.abc import Sequence
from typing import Any

import pgtrigger
from django.apps import apps
from django.db import connections, models
from pgtrigger import compiler
from psycopg.sql import SQL, Composed, Identifier

from sharding.models.local import LocalManager

__all__ = [
    "Change",
    "ClockTimestamp",
    "LoggingSql",
    "ShardChange",
    "change_triggers",
    "tune_logs",
]


# With this setting on, the guard lets nothing be deleted but rows that were moved away.
_UNLESS_CLEANING = SQL("IF current_setting('sharding.cleaning', true) = 'on' THEN ELSE {} END IF;")
# Most of a queue are dead rows: how many it has says nothing of how many there may be.
_QUEUE = ["autovacuum_vacuum_scale_factor=0", "autovacuum_vacuum_threshold=5000"]


class ClockTimestamp(models.Func):
    """The time at which the row is written, not that of its transaction's beginning."""

    template = "clock_timestamp()"
    output_field = models.DateTimeField()


class Change(models.Model):
    """One entry of a log: whose row was changed, or NULL for a TRUNCATE, and when."""

    id = models.BigAutoField(primary_key=True)
    user_id = models.UUIDField(null=True)
    at = models.DateTimeField(db_default=ClockTimestamp())

    class Meta:
        abstract = True

    def __str__(self) -> str:
        return f"{self.user_id or 'everything'} at {self.at:%Y-%m-%d %H:%M:%S}"


class ShardChange(Change):
    """The same for rows on the shards: each shard has a log of its own."""

    objects = LocalManager(primary=False)

    class Meta:
        abstract = True
        base_manager_name = "objects"


class LoggingSql(compiler.UpsertTriggerSql):
    """The SQL of a trigger that pgtrigger.ignore() does not switch off: no change may be lost.

    Asking whether it is to be ignored takes a third of the trigger's time besides.
    """

    def get_template(self) -> str:
        return """
            CREATE OR REPLACE FUNCTION {pgid}() RETURNS TRIGGER AS $$
                BEGIN
                    {func}
                END;
            $$ LANGUAGE plpgsql;

            DROP TRIGGER IF EXISTS {pgid} ON {table};
            CREATE TRIGGER {pgid} {when} {operation} ON {table} {referencing}
                FOR EACH {level} EXECUTE FUNCTION {execute};

            COMMENT ON TRIGGER {pgid} ON {table} IS '{hash}';
        """


def change_triggers(
    log: str, *, key: str, columns: Sequence[str], sharded: bool = False
) -> tuple[pgtrigger.Trigger, ...]:
    """Return the triggers, for a model's Meta.triggers, that log its changes in the table `log`.

    `key` is the column that holds the user's id, `columns` are those whose change is logged.
    `sharded` says that the model is: its rows that were moved to another shard are not gone.
    """
    new, old = SQL("new_rows"), SQL("old_rows")
    deleted = _keys(log, key, old)
    if sharded:
        deleted = _UNLESS_CLEANING.format(deleted)
    return (
        _trigger("insert", pgtrigger.Insert, _keys(log, key, new), new="new_rows"),
        _trigger("delete", pgtrigger.Delete, deleted, old="old_rows"),
        _trigger(
            "update", pgtrigger.Update, _changed(log, key, columns), old="old_rows", new="new_rows"
        ),
        _trigger("truncate", pgtrigger.Truncate, _everything(log)),
    )


def tune_logs(using: str, **kwargs: Any) -> None:
    """Have the logs on a database vacuumed as the queues that they are; for `post_migrate`."""
    with connections[using].cursor() as cursor:
        for model in apps.get_models():
            if issubclass(model, Change):
                table = model._meta.db_table
                # Only where it is missing, as it waits for a VACUUM that works on the table.
                cursor.execute(
                    "SELECT FROM pg_class WHERE oid = to_regclass(%s)"
                    " AND NOT coalesce(reloptions, '{}') @> %s",
                    [table, _QUEUE],
                )
                if cursor.fetchone() is not None:
                    options = SQL(", ").join(map(SQL, _QUEUE))
                    cursor.execute(
                        SQL("ALTER TABLE {} SET ({})").format(Identifier(table), options)
                    )


class _Trigger(pgtrigger.Trigger):
    def compile(self, model: models.Model) -> compiler.Trigger:
        made = super().compile(model)
        return compiler.Trigger(name=made.name, sql=LoggingSql(**made.sql.kwargs))


def _trigger(
    name: str, operation: pgtrigger.Operation, statement: Composed, **rows: str
) -> pgtrigger.Trigger:
    return _Trigger(
        name=f"log_{name}",
        level=pgtrigger.Statement,
        when=pgtrigger.After,
        operation=operation,
        referencing=pgtrigger.Referencing(**rows) if rows else None,
        func=f"{statement.as_string()} RETURN NULL;",
    )


def _keys(log: str, key: str, rows: SQL) -> Composed:
    return SQL("INSERT INTO {} (user_id) SELECT {} FROM {};").format(
        Identifier(log), Identifier(key), rows
    )


def _changed(log: str, key: str, columns: Sequence[str]) -> Composed:
    """Log the keys of the rows that differ; a changed key counts as one row gone, one come.

    Byte by byte: some types have no equality (json), and in some what is equal is not the same.
    """
    return SQL(
        "INSERT INTO {log} (user_id) SELECT coalesce(n.{key}, o.{key})"
        " FROM old_rows o FULL JOIN new_rows n ON n.{key} = o.{key}"
        " WHERE record_image_ne(ROW({old}), ROW({new}));"
    ).format(
        log=Identifier(log),
        key=Identifier(key),
        old=_row("o", [key, *columns]),
        new=_row("n", [key, *columns]),
    )


def _everything(log: str) -> Composed:
    return SQL("INSERT INTO {} (user_id) VALUES (NULL);").format(Identifier(log))


def _row(table: str, columns: Sequence[str]) -> Composed:
    return SQL(", ").join(SQL("{}.{}").format(Identifier(table), Identifier(c)) for c in columns)
