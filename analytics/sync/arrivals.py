"""Sync through the move of a slot: its rows stand on two shards for a while, and change logs too.

Only a shard that owns a slot speaks for its rows: a batch reads, in one snapshot with the rows,
which slots those are, and leaves the copies of all others alone. The shard that takes slots over
logs all their rows, so whatever the former owner had not synced arrives. Before its next batch it
makes one of the former owner fail that read when the slots were still there.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from django.db import connections
from django.db.backends.utils import CursorWrapper
from django.dispatch import receiver
from psycopg.sql import SQL

from analytics.models import SyncArrival
from analytics.sync.described import SYNCED, Source
from analytics.sync.errors import Overtaken, naming
from sharding.signals import slots_arrived
from sharding.slot_sql import in_slots, slot_of

__all__ = ["log_arrived", "owning", "require_settled", "settle", "with_owned_slots"]

_OWNED = "SELECT slot FROM sharding_slotowner WHERE state IN ('owned', 'fenced')"
_ARRIVALS = "SELECT shard FROM analytics_syncarrival"


@receiver(slots_arrived)
def log_arrived(
    sender: object,
    alias: str,
    source: str,
    slots: frozenset[int],
    cursor: CursorWrapper,
    **kwargs: Any,
) -> None:
    """Log every row that came, in the transaction that makes them this shard's."""
    for synced in SYNCED:
        if synced.shard_field:
            here = Source(synced, alias)
            cursor.execute(
                SQL("INSERT INTO {} (user_id) SELECT {} FROM {} WHERE {}").format(
                    here.log, here.key, here.table, in_slots(slot_of(here.key), slots)
                )
            )
    cursor.execute(
        "INSERT INTO analytics_syncarrival (shard) VALUES (%s) ON CONFLICT DO NOTHING", [source]
    )


def with_owned_slots(cursor: CursorWrapper, source: Source) -> Source:
    """Return the source with the slots that it owns; as it is, where there are none."""
    if not source.shard_column:
        return source
    cursor.execute(_OWNED)
    return replace(source, slots=frozenset(slot for (slot,) in cursor.fetchall()))


def owning(source: Source) -> Source:
    """The same, on a connection of this thread."""
    with naming(source.alias), connections[source.alias].cursor() as cursor:
        return with_owned_slots(cursor, source)


def settle(source: Source, overtake: Callable[[Source], object]) -> None:
    """Call `overtake` for every source that lost slots to this one, and then forget about them."""
    if not source.shard_column:
        return
    with naming(source.alias), connections[source.alias].cursor() as cursor:
        cursor.execute(_ARRIVALS)
        former = [shard for (shard,) in cursor.fetchall()]
    for shard in former:
        for synced in SYNCED:
            if synced.shard_field:
                overtake(Source(synced, shard))
        SyncArrival.objects.using(source.alias).filter(shard=shard).delete()


def require_settled(cursor: CursorWrapper, source: Source) -> None:
    """Raise Overtaken when slots arrived since `settle`."""
    if source.shard_column:
        cursor.execute(_ARRIVALS)
        if cursor.fetchone():
            raise Overtaken(f"Slots arrived at {source.alias} just now.")
