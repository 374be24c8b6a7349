"""Sync through the move of a slot: its rows stand on two shards for a while, and change logs too.

Only a shard that owns a slot speaks for its rows: a batch reads, in one snapshot with the rows,
which slots those are, and leaves the copies of all others alone. The shard that takes slots over
notes that, while writers wait. Before its next batch the sync makes one of the former owner fail
that was begun when the slots were still there; and logs all rows and all copies in these slots, so
that whatever the former owner had not synced arrives, deletions too.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from django.db import connections, transaction
from django.db.backends.utils import CursorWrapper
from django.dispatch import receiver

from analytics.sync import statements
from analytics.sync.described import SYNCED, Source
from analytics.sync.errors import Overtaken, naming
from analytics.sync.piping import pipe
from sharding import conf
from sharding.signals import slots_arrived

__all__ = ["note_arrived", "owning", "require_settled", "settle", "with_owned_slots"]

_OWNED = "SELECT slot FROM sharding_slotowner WHERE state IN ('owned', 'fenced')"
_ARRIVALS = "SELECT shard FROM analytics_syncarrival"
_TAKE_ARRIVAL = "DELETE FROM analytics_syncarrival WHERE shard = %s RETURNING slots"


@receiver(slots_arrived)
def note_arrived(
    sender: object, source: str, slots: frozenset[int], cursor: CursorWrapper, **kwargs: Any
) -> None:
    """Note which slots came, in the transaction that makes them this shard's."""
    cursor.execute(
        "INSERT INTO analytics_syncarrival AS known (shard, slots) VALUES (%s, %s)"
        " ON CONFLICT (shard) DO UPDATE SET slots = known.slots || excluded.slots",
        [source, sorted(slots)],
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
    """Call `overtake` for every source that lost slots to this one, and log what is in them."""
    if not source.shard_column:
        return
    for shard in _arrivals(source):
        for synced in SYNCED:
            if synced.shard_field:
                overtake(Source(synced, shard))
        _log_arrived(source.alias, shard)


def _arrivals(source: Source) -> list[str]:
    with naming(source.alias), connections[source.alias].cursor() as cursor:
        cursor.execute(_ARRIVALS)
        return [shard for (shard,) in cursor.fetchall()]


def _log_arrived(alias: str, shard: str) -> None:
    with (
        naming(alias),
        transaction.atomic(using=alias),
        connections[alias].cursor() as here,
        connections[conf.analytics()].cursor() as there,
    ):
        # All that are noted by now; what comes later is noted anew.
        here.execute(_TAKE_ARRIVAL, [shard])
        slots = frozenset(slot for (each,) in here.fetchall() for slot in each)
        for source in (Source(synced, alias, slots) for synced in SYNCED if synced.shard_field):
            keys = statements.copy_out_keys(source)
            pipe(there, here, out=keys, into=statements.copy_to_log(source))
            here.execute(statements.log_rows(source))


def require_settled(cursor: CursorWrapper, source: Source) -> None:
    """Raise Overtaken when slots arrived since `settle`."""
    if source.shard_column:
        cursor.execute(_ARRIVALS)
        if cursor.fetchone():
            raise Overtaken(f"Slots arrived at {source.alias} just now.")
