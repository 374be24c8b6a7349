"""What is synced: which model is copied to which, from where, and with which columns."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from django.db import connections, models
from psycopg.sql import Identifier

from analytics.models import ProfileAnalytics, UserAnalytics
from sharding import conf
from sharding.change_log import Change
from sharding.placement import aliases_at, place
from users.models import Profile, ProfileChange, User, UserChange

__all__ = ["PROFILES", "SYNCED", "USERS", "Source", "Synced", "column_type", "sources"]

# Types whose values have the same hash on every server. Others have none (json, bit, money), or one
# that contains numbers of the server's own (enums), and are compared as text.
_HASHED_ALIKE = {
    *("uuid", "boolean", "smallint", "integer", "bigint", "double precision", "numeric"),
    *("varchar", "text", "bytea", "jsonb", "inet"),
    *("date", "time", "timestamp with time zone", "interval"),
}


@dataclass(frozen=True)
class Synced:
    """A model and its copy. `columns` maps the fields that are copied, besides the key.

    The key of both is a user's id, a UUID, and the primary key. `log` holds the changes of
    `source`; `shard_field` of `target`, if any, takes the alias that a row came from.
    """

    name: str
    source: type[models.Model]
    log: type[Change]
    target: type[models.Model]
    columns: dict[str, str] = field(hash=False)
    shard_field: str = ""


@dataclass(frozen=True)
class Source:
    """One database from which a model is copied.

    `slots` are those whose rows count there, read in the snapshot that the rows are read in: while
    slots move, their rows stand on two shards. None: all.
    """

    synced: Synced
    alias: str
    slots: frozenset[int] | None = None

    @cached_property
    def name(self) -> str:
        """How the source is called in checkpoints and messages, e.g. users or profiles/shard_1."""
        return f"{self.synced.name}/{self.alias}" if self.synced.shard_field else self.synced.name

    @cached_property
    def table(self) -> Identifier:
        return Identifier(self.synced.source._meta.db_table)

    @cached_property
    def log(self) -> Identifier:
        return Identifier(self.synced.log._meta.db_table)

    @cached_property
    def target(self) -> Identifier:
        return Identifier(self.synced.target._meta.db_table)

    @cached_property
    def key(self) -> Identifier:
        return _primary_key(self.synced.source)

    @cached_property
    def target_key(self) -> Identifier:
        return _primary_key(self.synced.target)

    @cached_property
    def columns(self) -> list[Identifier]:
        """The source's columns: the key, then those that are copied."""
        return [self.key, *(_column(self.synced.source, name) for name in self.synced.columns)]

    @cached_property
    def target_columns(self) -> list[Identifier]:
        """The target's columns for them, in the same order."""
        names = self.synced.columns.values()
        return [self.target_key, *(_column(self.synced.target, name) for name in names)]

    @cached_property
    def pairs(self) -> str:
        """Which column is copied to which, as a text to compare."""
        pairs = zip(self.columns, self.target_columns, strict=True)
        return ", ".join(f"{here.as_string()} to {there.as_string()}" for here, there in pairs)

    @cached_property
    def as_text(self) -> list[bool]:
        """Which of the columns, in their order, are compared as text."""
        model = self.synced.source
        fields = [model._meta.pk, *(model._meta.get_field(name) for name in self.synced.columns)]
        return [column_type(field, self.alias) not in _HASHED_ALIKE for field in fields]

    @cached_property
    def shard_column(self) -> Identifier | None:
        name = self.synced.shard_field
        return _column(self.synced.target, name) if name else None


USERS = Synced(
    name="users",
    source=User,
    log=UserChange,
    target=UserAnalytics,
    # Never the password.
    columns={
        name: name
        for name in ("email", "name", "is_active", "is_staff", "date_joined", "last_login")
    },
)
PROFILES = Synced(
    name="profiles",
    source=Profile,
    log=ProfileChange,
    target=ProfileAnalytics,
    columns={name: name for name in ("country", "plan", "created_at", "updated_at")},
    shard_field="shard",
)
SYNCED = (USERS, PROFILES)


def sources() -> list[Source]:
    """Every database from which something is copied, the primary first."""
    return [
        Source(synced, alias)
        for synced in SYNCED
        for alias in aliases_at(place(synced.source))
        if alias != conf.analytics()
    ]


def _primary_key(model: type[models.Model]) -> Identifier:
    pk = model._meta.pk
    assert pk is not None and pk.column
    return Identifier(pk.column)


def _column(model: type[models.Model], name: str) -> Identifier:
    found = model._meta.get_field(name)
    assert isinstance(found, models.Field) and found.column
    return Identifier(found.column)


def column_type(field: Any, alias: str) -> str:
    """Return a column's type without its length, e.g. varchar."""
    return field.db_type(connections[alias]).partition("(")[0]
