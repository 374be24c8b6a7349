"""Every database at a glance: whether it answers, how much it holds, what of it is in use."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

from django.db import connections

from sharding import conf, slot_cache
from sharding.orm.scatter import scatter

__all__ = ["DatabaseState", "overview"]

# Estimates, so that the answer takes a millisecond: statistics are lost when a server is killed,
# and those of the planner come with the next ANALYZE.
_STATE = """
    SELECT pg_database_size(current_database()),
        (SELECT coalesce(sum(greatest(c.reltuples::bigint, s.n_live_tup, 0)), 0)::bigint
         FROM pg_class AS c JOIN pg_stat_user_tables AS s ON s.relid = c.oid)
"""


@dataclass(frozen=True)
class DatabaseState:
    """One database. `size` is in bytes, `rows` an estimate; both are None while it is down.

    `pool_in_use` of `pool_max` connections of this process are given out; None without a pool.
    """

    alias: str
    up: bool
    size: int | None
    rows: int | None
    slots: int
    pool_in_use: int | None
    pool_max: int | None

    @property
    def label(self) -> str:
        """What people call it."""
        return conf.label(self.alias)

    @property
    def rows_text(self) -> str:
        """The estimate, marked as one."""
        return f"~{self.rows:,}" if self.rows is not None else "–"


def overview() -> list[DatabaseState]:
    """Ask all databases at once: the primary, analytics, then the shards."""
    aliases = (conf.primary(), conf.analytics(), *conf.shards())
    answers, missing = scatter(dict.fromkeys(aliases, (_STATE, None)), partial=True)
    slots = Counter(slot_cache.current().owners)
    return [_state(alias, answers.get(alias), missing, slots[alias]) for alias in aliases]


def _state(alias: str, rows: Any, missing: frozenset[str], slots: int) -> DatabaseState:
    size, live = rows[0] if rows else (None, None)
    used, largest = _pool(alias)
    return DatabaseState(
        alias=alias,
        up=alias not in missing,
        size=size,
        rows=live,
        slots=slots,
        pool_in_use=used,
        pool_max=largest,
    )


def _pool(alias: str) -> tuple[int | None, int | None]:
    pool = getattr(connections[alias], "pool", None)
    if pool is None:
        return None, None
    stats = pool.get_stats()
    return stats["pool_size"] - stats["pool_available"], stats["pool_max"]
