"""From verified to owned: the moment in which writers of the moved slots wait.

fenced: the source refuses their writes for a while. moved: for good, the point of no return.
switched: the map names the target. owned: the target takes writes.
"""

from datetime import timedelta
from time import monotonic

from django.db import connections
from django.db.backends.utils import CursorWrapper
from psycopg.sql import SQL, Identifier

from sharding import fence, ownership
from sharding.errors import MoveFailed
from sharding.models.moves import Move
from sharding.models.owned import SlotOwner
from sharding.moves import record
from sharding.moves.copying import Progress, Report, drained
from sharding.moves.servers import execute, one_lifetime, value, wait_for
from sharding.moves.verifying import verify
from sharding.signals import slots_arrived

__all__ = [
    "TooSlow",
    "gave_up",
    "give_up",
    "hold",
    "let_go",
    "receive_rest",
    "take_over",
    "unsubscribe",
]

State = SlotOwner.State

_HOLD = timedelta(seconds=3)  # after this a fence lets writers pass again, whatever became of us
_WAIT = 1.0  # seconds that writers wait before we let them pass and try again later
_READERS_MAY_PAUSE = 0.25  # seconds, between looking at the map and asking a server
_FOREVER = 24 * 3600.0


class TooSlow(MoveFailed):
    """The writers were let through again: something did not end in time."""


def hold(move: Move) -> None:
    """Fence the slots, and wait until the target has everything. Raises TooSlow."""
    with ownership.changing(move.source) as cursor:
        states = _require(cursor, move, State.OWNED, State.FENCED, State.MOVED)
        if State.MOVED in states:
            return  # a mover before us went further than its record
        cursor.execute("SELECT clock_timestamp()")
        (now,) = cursor.fetchone()
        until = now + _HOLD
        ownership.set_state(cursor, move.slots, State.FENCED, move=move.pk, fenced_until=until)
    deadline = monotonic() + _WAIT
    _wait_for_writers(move, timeout=_WAIT)
    try:
        drained(move, timeout=max(deadline - monotonic(), 0.05))
    except MoveFailed as error:
        raise TooSlow(f"{error} The writers were let through again.") from error


def let_go(move: Move) -> bool:
    """Take the fence away, if the source has not given the slots up yet; say whether it had not."""
    with ownership.changing(move.source) as cursor:
        states = _require(cursor, move, State.OWNED, State.FENCED, State.MOVED)
        if State.MOVED in states:
            return False
        ownership.set_state(cursor, move.slots, State.OWNED, move=move.pk)
    return True


def give_up(move: Move) -> None:
    """Let the source give the slots up for good."""
    with ownership.changing(move.source) as cursor:
        _require(cursor, move, State.FENCED, State.MOVED)
        ownership.set_state(cursor, move.slots, State.MOVED, move=move.pk)


def gave_up(move: Move) -> bool:
    """Say whether the source has given the slots up for good in this move."""
    with connections[move.source].cursor() as cursor:
        known = ownership.read(cursor)
    return all(
        slot in known and (known[slot].state, known[slot].move) == (State.MOVED, move.pk)
        for slot in move.slots
    )


def receive_rest(move: Move, report: Report) -> None:
    """Wait until the target has everything once more, now that nothing can be added.

    What slipped in after a fence that expired arrives here too.
    """
    report(Progress("waiting for the last writers"))
    _wait_for_writers(move, timeout=_FOREVER)
    if not _replicates(move):
        verify(move, report)  # it may have been complete
        return
    subscription = Identifier(record.name(move))
    execute(move.target, SQL("ALTER SUBSCRIPTION {} ENABLE").format(subscription))
    report(Progress("waiting for the last changes"))
    drained(move, timeout=_FOREVER)


def unsubscribe(move: Move) -> None:
    """Drop the subscription without its replication slot, which may be out of reach."""
    name = record.name(move)
    if not _is_subscribed(move):
        return
    # Its worker first: one that lives would delete here what is later cleaned on the source.
    for change in ("DISABLE", "SET (slot_name = NONE)"):
        if change != "DISABLE":
            wait_for(lambda: _has_no_worker(move), "the subscription's worker to end", timeout=60)
        execute(move.target, SQL("ALTER SUBSCRIPTION {} " + change).format(Identifier(name)))
    execute(move.target, SQL("DROP SUBSCRIPTION {}").format(Identifier(name)))


def take_over(move: Move) -> None:
    """End the replication and let the target take writes, once every process knows the new map,
    or has asked the shards.
    """
    with ownership.changing(move.target) as cursor:
        states = _require_target(cursor, move, State.IMPORTING)
        if State.OWNED in states:
            return
        ownership.set_state(cursor, move.slots, State.ARRIVED, move=move.pk)
    known = monotonic()
    unsubscribe(move)
    with ownership.changing(move.target) as cursor:
        if State.OWNED in _require_target(cursor, move):
            return
        slots_arrived.send(
            Move, alias=move.target, source=move.source, slots=frozenset(move.slots), cursor=cursor
        )
        one_lifetime(
            since=known, handing_over_since=move.handing_over_since, margin=_READERS_MAY_PAUSE
        )
        ownership.claim(cursor, move.slots)


def _require_target(cursor: CursorWrapper, move: Move, *states: str) -> set[str]:
    allowed = [(state, move.pk) for state in (State.ARRIVED, *states)]
    return ownership.require(cursor, move.slots, [*allowed, (State.OWNED, None)])


def _require(cursor: CursorWrapper, move: Move, *states: str) -> set[str]:
    return ownership.require(cursor, move.slots, [(state, move.pk) for state in states])


def _wait_for_writers(move: Move, *, timeout: float) -> None:
    """Wait for the transactions that may still write by the guard as it was. Raises TooSlow."""
    with connections[move.source].cursor() as cursor:
        before = fence.writers(cursor)
        try:
            wait_for(lambda: not before & fence.writers(cursor), "writers to end", timeout=timeout)
        except MoveFailed as error:
            still = sorted(str(pid) for _, pid in before & fence.writers(cursor))
            raise TooSlow(
                f"Transactions that write on {move.source} did not end in {timeout:g} s (processes "
                f"{', '.join(still)}; see pg_stat_activity, or pg_prepared_xacts for None)."
            ) from error


def _replicates(move: Move) -> bool:
    """Say whether the target can still receive anything: neither end was dropped, nor given up."""
    slot = "SELECT invalidation_reason IS NULL FROM pg_replication_slots WHERE slot_name = %s"
    return _is_subscribed(move) and bool(value(move.source, slot, [record.name(move)]))


def _is_subscribed(move: Move) -> bool:
    subscription = "SELECT true FROM pg_subscription WHERE subname = %s"
    return bool(value(move.target, subscription, [record.name(move)]))


def _has_no_worker(move: Move) -> bool:
    return not value(
        move.target,
        "SELECT count(pid) FROM pg_stat_subscription WHERE subname = %s",
        [record.name(move)],
    )
