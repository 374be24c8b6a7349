"""The SQL of the sync. Which columns are copied is decided here, by name: never the password."""

from collections.abc import Iterable

from django.db import models
from psycopg.sql import SQL, Composable, Composed, Identifier, Placeholder

from analytics.models import UserAnalytics
from users.models import User

__all__ = [
    "FIELDS",
    "INCOMING",
    "all_incoming",
    "copy_from_primary",
    "copy_to_incoming",
    "create_incoming",
    "delete_gone",
    "merge",
    "one_account",
]

# Field of User -> field of UserAnalytics.
_COPIED = {
    "id": "user_id",
    "email": "email",
    "name": "name",
    "is_active": "is_active",
    "is_staff": "is_staff",
    "date_joined": "date_joined",
    "last_login": "last_login",
}
FIELDS = tuple(_COPIED)  # of User, in the order of the columns of all statements
INCOMING = Identifier("sync_incoming")

_NOW = SQL("statement_timestamp()")  # not now(): the pass may wait long before it writes


def _column(model: type[models.Model], name: str) -> Identifier:
    field = model._meta.get_field(name)
    assert isinstance(field, models.Field) and field.column
    return Identifier(field.column)


_SOURCE = Identifier(User._meta.db_table)
_TARGET = Identifier(UserAnalytics._meta.db_table)
_SYNCED_AT = _column(UserAnalytics, "synced_at")
_SOURCE_COLUMNS = [_column(User, name) for name in _COPIED]
_COLUMNS = [_column(UserAnalytics, name) for name in _COPIED.values()]
_KEY, *_VALUES = _COLUMNS


def copy_from_primary() -> Composed:
    """Read every account. Binary, so both servers' columns must have the same types."""
    return SQL("COPY (SELECT {} FROM {}) TO STDOUT (FORMAT BINARY)").format(
        _list(_SOURCE_COLUMNS), _SOURCE
    )


def create_incoming() -> Composed:
    """Make the temporary table that holds the accounts until they are merged."""
    return SQL("CREATE TEMPORARY TABLE {} AS SELECT {} FROM {} WITH NO DATA").format(
        INCOMING, _list(_COLUMNS), _TARGET
    )


def copy_to_incoming() -> Composed:
    """Fill it with what `copy_from_primary` gave."""
    return SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(INCOMING, _list(_COLUMNS))


def all_incoming() -> Composed:
    """The accounts that came in, as a source for `merge`."""
    return SQL("SELECT {}, {} FROM {}").format(_list(_COLUMNS), _NOW, INCOMING)


def one_account() -> Composed:
    """One account, its FIELDS as parameters, as a source for `merge`."""
    return SQL("VALUES ({}, {})").format(_list([Placeholder()] * len(_COLUMNS)), _NOW)


def merge(source: Composable) -> Composed:
    """Write the source's rows that are new or differ. Equal ones keep their synced_at."""
    return SQL(
        "INSERT INTO {target} AS old ({columns}, {synced_at}) {source}"
        " ON CONFLICT ({key}) DO UPDATE SET ({values}, {synced_at}) = ({new}, {now})"
        " WHERE ({old}) IS DISTINCT FROM ({new})"
    ).format(
        target=_TARGET,
        columns=_list(_COLUMNS),
        synced_at=_SYNCED_AT,
        source=source,
        key=_KEY,
        values=_list(_VALUES),
        new=_list(_of("excluded", column) for column in _VALUES),
        now=_NOW,
        old=_list(_of("old", column) for column in _VALUES),
    )


def delete_gone() -> Composed:
    """Delete the copies of accounts that did not come in."""
    return SQL(
        "DELETE FROM {} AS old WHERE NOT EXISTS (SELECT FROM {} AS new WHERE {} = {})"
    ).format(_TARGET, INCOMING, _of("new", _KEY), _of("old", _KEY))


def _list(parts: Iterable[Composable]) -> Composed:
    return SQL(", ").join(parts)


def _of(table: str, column: Identifier) -> Composed:
    return SQL("{}.{}").format(Identifier(table), column)
