"""How every shard is, at a glance."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from django.db import DatabaseError, connections
from django.db.migrations.loader import MigrationLoader

from sharding import conf, identity, slot_cache
from sharding.errors import DatabaseUnavailable, ShardingError
from sharding.models.moves import Move
from sharding.moves import leftovers, record
from sharding.moves.servers import rows, value
from sharding.slot_sql import ranges
from sharding.slots import SlotMap
from sharding.tables import tables

__all__ = ["ShardStatus", "shard_status", "status", "under_way"]

_MUCH = 1e9  # bytes of WAL that a replication slot keeps, from which on it is worth a warning


@dataclass
class ShardStatus:
    """One shard. `problems` are sentences, each with what to do."""

    alias: str
    slots: int
    ranges: str
    health: str = "ok"
    bytes: int = 0
    rows: int = 0
    connections: str = ""
    migrations: str = ""
    move: str = ""
    problems: list[str] = field(default_factory=list)


def status() -> list[ShardStatus]:
    """Look at every declared shard; one that does not answer is reported, not raised."""
    slot_map = slot_cache.renew()
    return [shard_status(alias, slot_map) for alias in conf.shards()]


def under_way() -> Move | None:
    """Return the move that runs, or stopped on its way."""
    return record.active()


def shard_status(alias: str, slot_map: SlotMap) -> ShardStatus:
    """Look at one shard."""
    owned = slot_map.slots(alias)
    found = ShardStatus(alias, len(owned), _ranges(owned))
    try:
        _look(found)
    except DatabaseUnavailable as error:
        # The shard itself may be well: only the primary knows of moves.
        found.health = "down" if error.alias == alias else found.health
        found.problems.append(str(error))
    except (DatabaseError, ShardingError) as error:
        found.health = "wrong"
        found.problems = found.problems or [str(error)]  # the first is the cause
    return found


def _look(found: ShardStatus) -> None:
    alias = found.alias
    connections[alias].ensure_connection()
    if problem := identity.problem(alias, connections[alias].connection):
        found.health = "wrong"
        found.problems.append(problem)
    found.bytes = value(alias, "SELECT pg_database_size(current_database())")
    found.rows = sum(
        value(
            alias,
            "SELECT greatest(reltuples, pg_stat_get_live_tuples(oid))::bigint FROM pg_class"
            " WHERE oid = %s::regclass",
            [table.sql.as_string()],
        )
        for table in tables()
    )
    [(used, most)] = rows(
        alias,
        "SELECT count(*), current_setting('max_connections') FROM pg_stat_activity"
        " WHERE backend_type = 'client backend'",
    )
    found.connections = f"{used} of {most}"
    found.migrations = _migrations(alias)
    _look_at_moves(found)


def _look_at_moves(found: ShardStatus) -> None:
    alias = found.alias
    move = record.active()
    if move and alias in (move.source, move.target):
        found.move = f"{'to ' + move.target if alias == move.source else 'from ' + move.source}"
    for each in leftovers.find(alias):
        found.problems.append(f"{each.what}. {each.remedy}")
    for table, count in leftovers.foreign_rows(alias).items():
        found.problems.append(
            f"{alias} has {count} rows of slots that it does not own in {table}. manage.py shards "
            f"check"
        )
    for slot, size in leftovers.retained(alias).items():
        if size > _MUCH:
            found.problems.append(
                f"{alias} keeps {size / 1e9:.1f} GB of WAL for {slot}: go on with the move, or "
                f"abort it."
            )


def _migrations(alias: str) -> str:
    loader = MigrationLoader(connections[alias])
    missing = len(loader.disk_migrations.keys() - loader.applied_migrations.keys())
    return f"{missing} missing" if missing else "applied"


def _ranges(slots: Sequence[int] | frozenset[int]) -> str:
    parts = [str(a) if a == b else f"{a}-{b}" for a, b in ranges(slots)]
    return ",".join(parts[:6]) + (f",… ({len(parts)} ranges)" if len(parts) > 6 else "")
