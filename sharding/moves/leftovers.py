"""What a move that is no more has left on a shard, each with what removes it."""

from dataclasses import dataclass

from django.db import connections
from psycopg.sql import SQL

from sharding import ownership
from sharding.models.owned import SlotOwner
from sharding.moves import record
from sharding.moves.servers import rows, value
from sharding.slot_sql import in_slots, ranges
from sharding.tables import tables

__all__ = ["Leftover", "find", "foreign_rows", "retained"]

State = SlotOwner.State


@dataclass(frozen=True)
class Leftover:
    """Something that is there and should not be, and the command that removes it."""

    what: str
    remedy: str


def find(alias: str) -> list[Leftover]:
    """Return what is left on a shard of moves other than the one under way; rows aside."""
    move = record.active()
    mine = {record.name(move)} if move and alias in (move.source, move.target) else set()
    return [
        *_replication(alias, mine, copies=move is None),
        *_states(alias, move.pk if move else None),
    ]


def foreign_rows(alias: str) -> dict[str, int]:
    """Return table -> number of rows in slots that are not this shard's, nor just moving."""
    with connections[alias].cursor() as cursor:
        known = ownership.read(cursor)
    found = {}
    for table in tables():
        where = SQL("NOT {}").format(in_slots(table.slot, known))
        query = SQL("SELECT count(*) FROM {} WHERE {}").format(table.sql, where)
        if count := value(alias, query):
            found[table.name] = count
    return found


def retained(alias: str) -> dict[str, int]:
    """Return replication slot of a move -> bytes of WAL that the server keeps for it."""
    query = (
        "SELECT slot_name, coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn), 0)::bigint"
        " FROM pg_replication_slots WHERE database = current_database() AND"
        " (starts_with(slot_name, %s) OR slot_name ~ '^pg_[0-9]+_sync_')"
    )
    return dict(rows(alias, query, [record.PREFIX]))


def _replication(alias: str, mine: set[str], *, copies: bool) -> list[Leftover]:
    prefix = record.PREFIX
    found = []
    for (name,) in rows(alias, _SUBSCRIPTIONS, [prefix]):
        if name not in mine:
            found.append(
                Leftover(
                    f"{alias} has the subscription {name} of a move that is no more",
                    f"on {alias}: ALTER SUBSCRIPTION {name} DISABLE; ALTER SUBSCRIPTION {name} SET "
                    f"(slot_name = NONE); DROP SUBSCRIPTION {name};",
                )
            )
    for name, size in retained(alias).items():
        if name not in mine and (copies or name.startswith(prefix)):
            found.append(
                Leftover(
                    f"{alias} keeps {size / 1e6:.0f} MB of WAL for the replication slot {name} of "
                    f"a move that is no more",
                    f"on {alias}: SELECT pg_drop_replication_slot('{name}');",
                )
            )
    query = "SELECT pubname FROM pg_publication WHERE starts_with(pubname, %s)"
    for (name,) in rows(alias, query, [prefix]):
        if name not in mine:
            what = f"{alias} has the publication {name} of a move that is no more"
            found.append(Leftover(what, f"on {alias}: DROP PUBLICATION {name};"))
    return found


_SUBSCRIPTIONS = (
    "SELECT subname FROM pg_subscription WHERE starts_with(subname, %s) AND subdbid ="
    " (SELECT oid FROM pg_database WHERE datname = current_database())"
)


def _states(alias: str, move: int | None) -> list[Leftover]:
    with connections[alias].cursor() as cursor:
        known = ownership.read(cursor)
    stray = [slot for slot, owner in known.items() if owner.move not in (None, move)]
    if not stray:
        return []
    return [
        Leftover(
            f"{alias} believes that the slots {ranges(stray)} take part in a move that is no more",
            "manage.py shards check --repair",
        )
    ]
