"""Which values Python orders and groups exactly as PostgreSQL does: an allow-list."""

from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from django.core.exceptions import FieldError
from django.db import connections
from django.db.models import Field
from django.db.models.expressions import BaseExpression
from django.db.models.functions import Collate, Now
from django.db.models.sql import Query

from sharding.errors import DatabaseUnavailable
from sharding.orm.refusals import refuse

__all__ = ["field_of", "is_text", "orders_by_code_point", "require_comparable"]

_TEXT = {"CharField", "TextField", "SlugField", "FilePathField", "FileField"}
_PLAIN = {
    "AutoField",
    "BigAutoField",
    "BigIntegerField",
    "BinaryField",
    "BooleanField",
    "DateField",
    "DateTimeField",
    "DecimalField",
    "DurationField",
    "FloatField",
    "IntegerField",
    "PositiveBigIntegerField",
    "PositiveIntegerField",
    "PositiveSmallIntegerField",
    "SmallAutoField",
    "SmallIntegerField",
    "TimeField",
    "UUIDField",
}
_CODE_POINT = {"C", "POSIX", "C.UTF-8", "C.utf8", "ucs_basic", "pg_c_utf8"}

_databases: dict[tuple[str, str], bool] = {}  # (alias, database name) -> by code point


def require_comparable(expression: BaseExpression, what: str) -> None:
    """Refuse `what`, e.g. "ORDER BY of", on a type that Python compares in another way."""
    if any(isinstance(part, Now) for part in expression.flatten()):
        refuse(
            f"{what} what is reckoned from Now()",
            "Each server has a present of its own. Use Value(timezone.now()).",
        )
    kind = _kind(field_of(expression))
    if kind in _TEXT:
        for collation in _collations(expression) - _CODE_POINT:
            refuse(
                f"{what} a text with the collation {collation!r}",
                "Only the server knows that order. Use Collate(…, 'C'), or ask one shard.",
            )
    elif kind not in _PLAIN:
        refuse(
            f"{what} a {kind or 'value of unknown type'}",
            "Python does not compare it as PostgreSQL does. Use a Cast to a plain type, or leave "
            "it out and compare in your own code.",
        )


def is_text(expression: BaseExpression) -> bool:
    """Say whether the order of an expression's values is a matter of the database's collation."""
    return _kind(field_of(expression)) in _TEXT and not _collations(expression)


def orders_by_code_point(aliases: Iterable[str]) -> bool:
    """Say whether text is sorted by code point, as in Python, on all of these databases."""
    return all(_by_code_point(alias) for alias in aliases)


def _by_code_point(alias: str) -> bool:
    key = (alias, connections[alias].settings_dict["NAME"])
    if key not in _databases:
        with suppress(DatabaseUnavailable), connections[alias].cursor() as cursor:
            cursor.execute(
                "SELECT datlocprovider = 'b' OR datlocprovider = 'c' AND datcollate = ANY(%s) "
                "FROM pg_database WHERE datname = current_database()",
                [sorted(_CODE_POINT)],
            )
            _databases[key] = cursor.fetchone() == (True,)
    return _databases.get(key, True)  # a shard that is down sends no rows that could be sorted


def field_of(expression: BaseExpression) -> "Field[Any, Any] | None":
    """Return the field whose type an expression has; a foreign key has that of its target."""
    try:
        field = getattr(expression, "_output_field_or_none", None)
    except FieldError:  # several types, to Django; to PostgreSQL all of them may be text
        fields = [field_of(each) for each in expression.get_source_expressions() if each]
        return fields[0] if all(_kind(each) in _TEXT for each in fields) else None
    while field is not None and field.is_relation:
        field = field.target_field
    return field


def _kind(field: "Field[Any, Any] | None") -> str:
    if field is None:
        return ""
    # A column type of its own, say citext, compares in its own way.
    known = type(field).db_type is Field.db_type
    return field.get_internal_type() if known else type(field).__name__


def _collations(expression: Any) -> set[str]:
    """The collations named in an expression: functions pass on that of their arguments."""
    if isinstance(expression, Collate):
        return {expression.collation}
    parts = _parts(expression)
    if not parts and (named := getattr(field_of(expression), "db_collation", None)):
        return {named}
    return set[str]().union(*map(_collations, parts))


def _parts(expression: Any) -> list[Any]:
    if isinstance(expression, Query):
        return [*expression.select, *expression.annotation_select.values()]
    parts: list[Any] = getattr(expression, "get_source_expressions", list)()
    return [part for part in parts if part is not None]
