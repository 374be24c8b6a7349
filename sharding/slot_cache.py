"""The slot map that this process works with: kept, and at most `conf.map_lifetime()` old."""

import os
from collections.abc import Callable
from threading import Lock
from time import monotonic, sleep
from uuid import UUID

from sharding import conf
from sharding.hashing import slot_for
from sharding.map_source import MapSource
from sharding.slots import SlotMap

__all__ = [
    "clear",
    "cluster",
    "current",
    "formerly_owned",
    "get_shard_for_user_id",
    "pause",
    "read",
    "renew",
]

_FORMER = 60.0  # seconds for which a slot's former owner is remembered
_PAUSE = 0.02  # seconds

_lock = Lock()
_source = MapSource()
_Known = tuple[SlotMap, float]  # the map, and since when it may be out of date
_known: _Known | None = None
_former: dict[int, tuple[str, float]] = {}  # slot -> the owner before, and until when


def current() -> SlotMap:
    """Return the slot map. Raises InvalidSlotMap when the primary does not hold a whole one."""
    if (known := _known) and _is_young(known):
        return known[0]
    return _renewed(unless=_is_young)


def renew() -> SlotMap:
    """Return the map as it is now, whatever is known."""
    now = monotonic()
    return _renewed(unless=lambda known: known[1] >= now)


def clear() -> None:
    """Forget the map, and close the connections over which it is read."""
    global _known
    with _lock:  # or a read that is under way would keep the map as it was before
        _known = None
        _former.clear()
        _source.close()


def read() -> SlotMap:
    """Read the map anew and keep nothing. Raises InvalidSlotMap, DatabaseUnavailable."""
    with _lock:
        return _source.read()


def cluster() -> UUID | None:
    """Return the id of the installation, as it was read with the map."""
    current()
    return _source.cluster


def get_shard_for_user_id(user_id: UUID | str) -> str:
    """Return the alias of the shard that owns a user's rows.

    Raises InvalidShardKey for an id that is no UUID, InvalidSlotMap before the first `migrate`.
    """
    return current().owners[slot_for(user_id)]


def formerly_owned(alias: str, user_id: UUID | str) -> bool:
    """Say whether this shard owned a user until a moment ago: who named it may not know better."""
    owner, until = _former.get(slot_for(user_id), ("", 0.0))
    return owner == alias and monotonic() < until


def pause() -> None:
    """Wait a moment for a slot that moves, and renew the map."""
    sleep(_PAUSE)
    renew()


def _is_young(known: _Known) -> bool:
    slot_map, asked = known
    return monotonic() - asked < conf.map_lifetime(handing_over=slot_map.handing_over)


def _renewed(*, unless: Callable[[_Known], bool]) -> SlotMap:
    global _known
    with _lock:
        if _known and unless(_known):  # another thread was here first
            return _known[0]
        asked = monotonic()
        before = _known[0] if _known else None
        slot_map = _source.read(before)
        if before:
            _note_changes(before, slot_map)
        _known = slot_map, asked
        return slot_map


def _note_changes(before: SlotMap, after: SlotMap) -> None:
    if before.owners is after.owners:
        return
    for slot, (old, new) in enumerate(zip(before.owners, after.owners, strict=True)):
        if old != new:
            _former[slot] = old, monotonic() + _FORMER


def _after_fork() -> None:
    # The lock may be held by a thread that the child does not have.
    global _lock
    _lock = Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
