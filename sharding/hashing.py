"""From a user's id to its slot. Pure: knows neither shards nor Django."""

import re
from uuid import UUID

from sharding.errors import InvalidShardKey

__all__ = ["SLOTS", "slot_for"]

SLOTS = 1000

# uuid.UUID() also takes braces, "urn:uuid:", hyphens anywhere and int()'s underscores; PostgreSQL
# would store some of these as another id than the one that was hashed.
_UUID = re.compile(
    r"([0-9a-f]{8})(?:-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|[0-9a-f]{24})",
    re.IGNORECASE | re.ASCII,
)


def slot_for(user_id: UUID | str) -> int:
    """Return the slot of a user's id, 0 to SLOTS - 1: its first 32 bits modulo SLOTS.

    The ids must be random in these bits, as UUID4's are and UUID7's are not.
    Raises InvalidShardKey for anything that is no UUID.
    """
    if isinstance(user_id, UUID):
        return (user_id.int >> 96) % SLOTS
    match = _UUID.fullmatch(user_id) if isinstance(user_id, str) else None
    if match is None:
        raise InvalidShardKey(
            f"{_shown(user_id)} is no UUID, so it belongs to no shard. Pass a user's id as "
            f"uuid.UUID or as text like 'f81d4fae-7dec-41d0-a765-00a0c91e6bf6'."
        )
    return int(match[1], 16) % SLOTS


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
