"""The slot map that this process works with, read from the primary once and kept."""

from threading import Lock
from uuid import UUID

from django.db import connections, transaction

from sharding import conf
from sharding.errors import InvalidSlotMap
from sharding.hashing import slot_for
from sharding.slots import SlotMap

__all__ = ["clear", "current", "fill", "get_shard_for_user_id", "is_filled", "read"]

_lock = Lock()
_map: SlotMap | None = None


def current() -> SlotMap:
    """Return the slot map. Raises InvalidSlotMap when the table does not hold a whole one."""
    global _map
    if (slot_map := _map) is None:
        with _lock:
            slot_map = _map = _map or read()
    return slot_map


def clear() -> None:
    """Forget the map: the next use reads it anew."""
    global _map
    with _lock:  # or a read that is under way would keep the map as it was before
        _map = None


def get_shard_for_user_id(user_id: UUID | str) -> str:
    """Return the alias of the shard that owns a user's rows.

    Raises InvalidShardKey for an id that is no UUID, InvalidSlotMap before the first `migrate`.
    """
    return current().owners[slot_for(user_id)]


def read() -> SlotMap:
    """Read the map from the primary. Raises InvalidSlotMap when it is not there, or not whole."""
    if not is_filled():
        raise InvalidSlotMap("The primary holds no slot map yet. Run `manage.py migrate`.")
    with connections[conf.primary()].cursor() as cursor:
        cursor.execute("SELECT slot, shard, version FROM sharding_slot")
        rows = cursor.fetchall()
    slot_map = SlotMap.from_pairs(
        ((slot, shard) for slot, shard, _ in rows), version=max(version for *_, version in rows)
    )
    slot_map.require_known(conf.shards())
    return slot_map


def is_filled() -> bool:
    """Say whether the primary holds a map, whole or not."""
    if not _has_table(conf.primary()):
        return False
    with connections[conf.primary()].cursor() as cursor:
        cursor.execute("SELECT EXISTS (SELECT FROM sharding_slot)")
        return cursor.fetchone() == (True,)


def fill(using: str, **kwargs: object) -> None:
    """Store the first map after the first `migrate` of the primary; later ones change nothing."""
    if using != conf.primary() or not _has_table(using):
        return
    with transaction.atomic(using=using), connections[using].cursor() as cursor:
        # Two `migrate`s at once must not store two maps.
        cursor.execute("LOCK TABLE sharding_slot IN SHARE ROW EXCLUSIVE MODE")
        if not is_filled():
            cursor.executemany(
                "INSERT INTO sharding_slot (slot, shard, version) VALUES (%s, %s, 1)",
                list(enumerate(conf.first_slot_map().owners)),
            )
    clear()


def _has_table(alias: str) -> bool:
    with connections[alias].cursor() as cursor:
        cursor.execute("SELECT to_regclass('sharding_slot') IS NOT NULL")
        return cursor.fetchone() == (True,)
