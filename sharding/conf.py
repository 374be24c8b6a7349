"""The one reader of this app's settings."""

import re
from collections.abc import Mapping
from functools import cache

from django.conf import settings

from sharding.slots import SlotMap

__all__ = [
    "analytics",
    "analytics_paths",
    "analytics_strict",
    "app_databases",
    "checks_identity",
    "deep_offset",
    "first_slot_map",
    "label",
    "map_lifetime",
    "move_patience",
    "pool_size",
    "primary",
    "processes",
    "shards",
    "smallest_pool",
]

_WITHOUT_POOLS = 20
_SHORTER = 5  # times, which a map lives while slots are handed over

_SHARD = re.compile(r"shard_([1-9]\d*)", re.ASCII)


def primary() -> str:
    """The alias of the primary."""
    return settings.PRIMARY_DATABASE


def label(alias: str) -> str:
    """What people call an alias: "primary" for the primary's."""
    return "primary" if alias == primary() else alias


def app_databases() -> Mapping[str, str]:
    """App label -> alias, for apps whose models all live in one database other than the primary."""
    return getattr(settings, "DATABASE_APPS", {})


def analytics() -> str:
    """The alias of the analytics database."""
    return app_databases().get("analytics", "analytics")


def analytics_paths() -> tuple[str, ...]:
    """The prefixes of the URL paths whose requests work on the analytics database."""
    return tuple(getattr(settings, "ANALYTICS_PATHS", ()))


def analytics_strict() -> bool:
    """Whether a request for analytics that asks another database fails, or is only logged."""
    return getattr(settings, "ANALYTICS_STRICT", settings.DEBUG)


def deep_offset() -> int:
    """From how many skipped rows on a page over several shards is worth a warning."""
    return getattr(settings, "SHARDING_DEEP_OFFSET", 10_000)


def map_lifetime(*, handing_over: bool = False) -> float:
    """For how many seconds a process may use the slot map without asking whether it changed.

    The same in every process: a move waits so long before it relies on a change being known. A map
    by which slots are about to change their owner lives shorter, because writers wait for its end.
    """
    lifetime: float = getattr(settings, "SHARDING_MAP_LIFETIME", 0.5)
    return lifetime / _SHORTER if handing_over else lifetime


def move_patience() -> float:
    """For how many seconds a write waits for a slot that is just moving."""
    return getattr(settings, "SHARDING_MOVE_PATIENCE", 10.0)


def checks_identity() -> bool:
    """Whether a shard's server is asked, once a process, if it is the right one."""
    return getattr(settings, "SHARDING_CHECK_IDENTITY", True)


def shards() -> tuple[str, ...]:
    """The aliases of all shards, `shard_<n>`, in the order of their numbers."""
    return _shards_among(tuple(settings.DATABASES))


@cache  # the names of hundreds of shards are not sorted again for each query
def _shards_among(aliases: tuple[str, ...]) -> tuple[str, ...]:
    numbers = (match for alias in aliases if (match := _SHARD.fullmatch(alias)))
    return tuple(match[0] for match in sorted(numbers, key=lambda match: int(match[1])))


def smallest_pool() -> int:
    """How many connections this process may open to the database that allows it the fewest."""
    pools = (each.get("OPTIONS", {}).get("pool") for each in settings.DATABASES.values())
    sizes = [pool_size(pool) for pool in pools if isinstance(pool, dict)]
    return min(sizes, default=_WITHOUT_POOLS)


def pool_size(pool: Mapping[str, int]) -> int:
    """How many connections a pool with these options may have; psycopg_pool's default is 4."""
    return pool.get("max_size") or pool.get("min_size", 4)


def processes() -> int:
    """How many processes, on all machines, connect to the databases."""
    return getattr(settings, "DATABASE_PROCESSES", 1)


def first_slot_map() -> SlotMap:
    """The map with which a new installation starts: SHARD_SLOTS, or even when that is unset.

    Raises InvalidSlotMap. From the first `migrate` on, the table on the primary is the truth.
    """
    text = getattr(settings, "SHARD_SLOTS", "")
    slot_map = SlotMap.parse(text) if text else SlotMap.even(shards())
    slot_map.require_known(shards())
    return slot_map
