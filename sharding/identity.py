"""Whether the server behind a shard's alias is that shard: asked once a process, before any query.

Another shard's server, another installation's, an empty one in place of one that was lost, or one
restored from a backup older than the last move would answer without an error, and wrongly.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any

from django.db import connections
from django.db.backends.utils import CursorWrapper
from psycopg.errors import UndefinedTable

from sharding import conf, slot_cache
from sharding.errors import DatabaseUnavailable, InvalidSlotMap, WrongDatabase
from sharding.slots import SlotMap

__all__ = ["knows_itself", "problem", "require", "require_all", "unchecked"]

_skipped: ContextVar[bool] = ContextVar("skipped", default=False)
_right: set[tuple[Any, ...]] = set()

_ASK_WHO = "SELECT alias, cluster FROM sharding_identity"
_ASK_OWNED = "SELECT slot FROM sharding_slotowner WHERE state IN ('owned', 'fenced')"


@contextmanager
def unchecked() -> Iterator[None]:
    """Connect to whatever is there: for commands that set shards up, or find out what is wrong."""
    token = _skipped.set(True)
    try:
        yield
    finally:
        _skipped.reset(token)


def require(alias: str, connection: Any) -> None:
    """Raise WrongDatabase when a psycopg connection for `alias` leads to another shard."""
    if _skipped.get() or not conf.checks_identity() or alias not in conf.shards():
        return
    info = connection.info
    place = (alias, info.host, info.port, info.dbname)
    if place in _right:
        return
    try:
        found = _problem(alias, connection)
    except (UndefinedTable, InvalidSlotMap, DatabaseUnavailable):
        return  # not set up yet, or nobody to compare it with: asked again the next time
    finally:
        if not connection.autocommit:
            connection.rollback()
    if found:
        raise WrongDatabase(found)
    _right.add(place)


def require_all() -> None:
    """Look at every shard that answers. Raises WrongDatabase."""
    for alias in conf.shards():
        with suppress(DatabaseUnavailable):
            connections[alias].ensure_connection()  # which asks
            connections[alias].close()


def knows_itself(cursor: CursorWrapper) -> bool:
    """Say whether `migrate` has told the shard who it is."""
    cursor.execute("SELECT EXISTS (SELECT FROM sharding_identity)")
    return cursor.fetchone() == (True,)


def problem(alias: str, connection: Any) -> str:
    """Return why the server is not the shard that the map means, or nothing.

    Raises InvalidSlotMap, DatabaseUnavailable.
    """
    with connections[alias].wrap_database_errors:
        try:
            return _problem(alias, connection)
        except UndefinedTable:
            return f"{alias} is not set up yet. Run `manage.py migrate`."


def _problem(alias: str, connection: Any) -> str:
    with connection.cursor() as cursor:
        who = cursor.execute(_ASK_WHO).fetchone()
        cursor.execute(_ASK_OWNED)
        owned = frozenset(slot for (slot,) in cursor.fetchall())
    cluster = slot_cache.cluster()
    if who is None:
        return _unknown(alias) if slot_cache.current().slots(alias) else ""
    variable = f"DATABASE_{alias.upper()}_URL"
    if who[0] != alias:
        return f"The server behind {alias} says that it is {who[0]}. Correct {variable}."
    if cluster and who[1] != cluster:
        return (
            f"The server behind {alias} belongs to another installation, {who[1]}; this one is "
            f"{cluster}. Correct {variable}."
        )
    if not _agree(alias, owned, slot_cache.current()) and not _agree(
        alias, owned, slot_cache.renew()
    ):
        return (
            f"The server behind {alias} owns other slots by its own account than by the map: it "
            f"was probably restored from a backup older than the last move. Restore a newer one, "
            f"or see `manage.py shards check`."
        )
    return ""


def _unknown(alias: str) -> str:
    return (
        f"The server behind {alias} does not know that it is that shard. Run `manage.py migrate`; "
        f"if that refuses because the server is empty, restore its backup."
    )


def _agree(alias: str, owned: frozenset[int], slot_map: SlotMap) -> bool:
    moving = frozenset[int]().union(*slot_map.hidden.values())
    return owned - moving == slot_map.slots(alias) - moving
