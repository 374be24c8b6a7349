"""COPY, and the temporary tables that it fills. Knows nothing of users."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Field, Model
from psycopg.sql import SQL, Composable, Identifier, Placeholder

__all__ = ["NULL", "STAGED", "Staging", "copy_in", "escaped", "execute"]

NULL = r"\N"  # as COPY's text format writes it

_ESCAPES = {"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"}  # the backslash comes first
STAGED = Identifier("staged")


def escaped(texts: Sequence[str]) -> Sequence[str]:
    """Return the texts as COPY's text format writes them."""
    together = "".join(texts)
    for character, escape in _ESCAPES.items():
        if character in together:
            texts = [text.replace(character, escape) for text in texts]
    return texts


def copy_in(
    connection: BaseDatabaseWrapper, table: Identifier, columns: Sequence[str], lines: Sequence[str]
) -> None:
    """Send lines of COPY's text format to a table. Raises Django's database errors."""
    statement = SQL("COPY {} ({}) FROM STDIN").format(table, _listed(map(Identifier, columns)))
    # A COPY reports what is wrong when it ends, out of the sight of Django's cursor.
    with (
        connection.wrap_database_errors,
        connection.cursor() as cursor,
        cursor.copy(statement.as_string()) as copy,
    ):
        copy.write("\n".join([*lines, ""]).encode())


class Staging:
    """A temporary table for some columns of a model, and the statements that use its rows.

    `fields` are names of fields, the key first. NULL in the temporary table means "not given": an
    insert then takes a default, an update leaves the column as it is.
    """

    def __init__(self, model: type[Model], fields: Sequence[str]) -> None:
        self.model = model
        self.table = Identifier(model._meta.db_table)
        self.columns = tuple(_column(model, name) for name in fields)
        self.key = Identifier(self.columns[0])

    @contextmanager
    def filled(self, connection: BaseDatabaseWrapper, lines: Sequence[str]) -> Iterator[None]:
        """Keep these lines of COPY's text format in the temporary table, in one transaction."""
        columns = _listed(map(Identifier, self.columns))
        create = SQL("CREATE TEMPORARY TABLE {} ON COMMIT DROP AS SELECT {} FROM {} WITH NO DATA")
        execute(connection, create.format(STAGED, columns, self.table))
        copy_in(connection, STAGED, self.columns, lines)
        yield
        execute(connection, SQL("DROP TABLE {}").format(STAGED))

    def insert(self, connection: BaseDatabaseWrapper, defaults: Mapping[str, Any]) -> None:
        """Insert all rows. Raises IntegrityError where one stands in the way."""
        execute(connection, *self._insert(connection, defaults))

    def insert_new(self, connection: BaseDatabaseWrapper, defaults: Mapping[str, Any]) -> set[Any]:
        """Insert the rows that nothing stands in the way of; return the keys of the others."""
        statement, values = self._insert(connection, defaults)
        others = SQL(
            "WITH inserted AS ({insert} ON CONFLICT DO NOTHING RETURNING {key}) "
            "SELECT {key} FROM {staged} WHERE {key} NOT IN (SELECT {key} FROM inserted)"
        ).format(insert=statement, key=self.key, staged=STAGED)
        return {key for (key,) in execute(connection, others, values)}

    def insert_or_replace(
        self, connection: BaseDatabaseWrapper, defaults: Mapping[str, Any]
    ) -> None:
        """Insert all rows; one that is there already becomes as if it were new."""
        statement, values = self._insert(connection, defaults)
        replaced = _listed(
            SQL("{0} = excluded.{0}").format(Identifier(field.column))
            for field in self.model._meta.concrete_fields
            if not field.primary_key
        )
        conflict = SQL(" ON CONFLICT ({}) DO UPDATE SET {}").format(self.key, replaced)
        execute(connection, statement + conflict, values)

    def update(self, connection: BaseDatabaseWrapper, also: Mapping[str, Any]) -> None:
        """Change the columns that are given in the stored rows, and those in `also` too."""
        given = [
            SQL("{0} = COALESCE(staged.{0}, stored.{0})").format(Identifier(column))
            for column in self.columns[1:]
        ]
        given += [
            SQL("{} = {}").format(Identifier(_column(self.model, name)), Placeholder())
            for name in also
        ]
        statement = SQL(
            "UPDATE {} AS stored SET {} FROM {} AS staged WHERE stored.{} = staged.{}"
        ).format(self.table, _listed(given), STAGED, self.key, self.key)
        execute(connection, statement, list(also.values()))

    def _insert(
        self, connection: BaseDatabaseWrapper, defaults: Mapping[str, Any]
    ) -> tuple[Composable, list[Any]]:
        fields = self.model._meta.concrete_fields
        values = [defaults[f.attname] if f.attname in defaults else f.get_default() for f in fields]
        statement = SQL("INSERT INTO {} ({}) SELECT {} FROM {}").format(
            self.table,
            _listed(Identifier(field.column) for field in fields),
            _listed(map(self._value, fields)),
            STAGED,
        )
        return statement, [
            field.get_db_prep_save(value, connection)
            for field, value in zip(fields, values, strict=True)
        ]

    def _value(self, field: "Field[Any, Any]") -> Composable:
        column = Identifier(field.column)
        if field.column in self.columns:
            return SQL("COALESCE({}, {})").format(column, Placeholder())
        return Placeholder()


def _column(model: type[Model], name: str) -> str:
    field = model._meta.get_field(name)
    assert isinstance(field, Field) and field.column
    return field.column


def _listed(parts: Iterable[Composable]) -> Composable:
    return SQL(", ").join(parts)


def execute(
    connection: BaseDatabaseWrapper, statement: Composable, values: Sequence[Any] = ()
) -> list[tuple[Any, ...]]:
    """Run a statement and return its rows, none if it has none. Raises Django's errors."""
    with connection.cursor() as cursor:
        cursor.execute(statement.as_string(), values)
        return cursor.fetchall() if cursor.description else []
