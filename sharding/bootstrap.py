"""The first time: the map on the primary, and on each shard its identity, its slots and its guard.

After every `migrate`: sharded tables that are new get their triggers.
"""

from typing import Any

from django.db import connections, transaction

from sharding import conf, fence, identity, ownership, slot_cache
from sharding.errors import DatabaseUnavailable, WrongDatabase
from sharding.models.slots import Cluster, Shard, Slot

__all__ = ["after_migrate", "fill", "is_filled"]


def after_migrate(using: str, **kwargs: Any) -> None:
    """Set up what this database lacks; later calls change nothing."""
    if using == conf.primary():
        fill(using)
    elif using in conf.shards() and _has(using, "sharding_slotowner"):
        _set_up(using)


def fill(using: str) -> None:
    """Store the first map, unless there is one. Raises InvalidSlotMap."""
    if using != conf.primary() or not _has(using, "sharding_cluster"):
        return
    with transaction.atomic(using=using), connections[using].cursor() as cursor:
        # Two `migrate`s at once must not store two maps.
        cursor.execute("LOCK TABLE sharding_slot IN SHARE ROW EXCLUSIVE MODE")
        if not Slot.objects.using(using).exists():
            owners = conf.first_slot_map().owners
            slots = [Slot(slot=slot, shard=owner) for slot, owner in enumerate(owners)]
            Slot.objects.using(using).bulk_create(slots)
        if not Cluster.objects.using(using).exists():
            Cluster.objects.using(using).create()
    slot_cache.clear()


def is_filled() -> bool:
    """Say whether the primary holds a map, whole or not."""
    primary = conf.primary()
    tables = ("sharding_cluster", "sharding_slot")
    return all(_has(primary, table) for table in tables) and Slot.objects.using(primary).exists()


def _set_up(alias: str) -> None:
    with ownership.changing(alias) as cursor:
        fresh = not identity.knows_itself(cursor)
        slots = _slots_to_claim(alias) if fresh else None
        if slots is not None:
            cluster = Cluster.objects.using(conf.primary()).get()
            cursor.execute(
                "INSERT INTO sharding_identity (alias, cluster) VALUES (%s, %s)",
                [alias, cluster.id],
            )
            ownership.claim(cursor, slots)
    with connections[alias].cursor() as cursor:
        fence.install(cursor)
    if slots is not None or not fresh:
        # After the shard itself: one that broke off here is registered by the next `migrate`.
        Shard.objects.using(conf.primary()).get_or_create(alias=alias)


def _slots_to_claim(alias: str) -> list[int] | None:
    """Return what the map gives a shard that is new; None where there is no map yet.

    Raises WrongDatabase for one that was set up before: its rows are somewhere else, or lost.
    """
    try:
        if not is_filled():
            return None
    except DatabaseUnavailable:
        return None
    primary = conf.primary()
    slots = Slot.objects.using(primary).filter(shard=alias).values_list("slot", flat=True)
    if slots and (known := Shard.objects.using(primary).filter(alias=alias).first()):
        raise WrongDatabase(
            f"{alias} was set up on {known.since:%Y-%m-%d}, owns {len(slots)} slots, and the "
            f"server behind it knows nothing of them. Restore its backup. Only if its rows are "
            f"lost for good, delete its row in the primary's table sharding_shard and run migrate "
            f"again: it then starts empty."
        )
    return list(slots)


def _has(alias: str, table: str) -> bool:
    with connections[alias].cursor() as cursor:
        cursor.execute("SELECT to_regclass(%s) IS NOT NULL", [table])
        return cursor.fetchone() == (True,)
