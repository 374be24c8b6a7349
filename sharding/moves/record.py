"""A move's record on the primary. Every change says which state it starts from, so that of two
movers, or of one that slept, only one goes on.
"""

import secrets
from collections.abc import Collection
from typing import Any

from django.db import connections, transaction
from django.db.models import F
from django.utils import timezone

from sharding import conf
from sharding.errors import MoveOvertaken, MoveRefused
from sharding.models.moves import Move
from sharding.models.slots import Cluster, Slot

__all__ = ["ENDED", "PREFIX", "active", "advance", "create", "name", "note_problem"]

State = Move.State
ENDED = (State.CLEANED, State.ABORTED)
PREFIX = "sharding_move_"
_PUBLISHED = (State.CATCHING_UP, State.SWITCHED, State.OWNED, *ENDED)  # which change the map


def active() -> Move | None:
    """Return the move that is under way, or stopped on its way, if any."""
    return Move.objects.exclude(state__in=ENDED).first()


def create(source: str, target: str, slots: Collection[int]) -> Move:
    """Publish a move: from now on maps leave its rows on the target out. Raises MoveRefused."""
    with transaction.atomic(using=conf.primary(), durable=True):
        Cluster.objects.select_for_update().get()  # one at a time
        if other := active():
            raise MoveRefused(_other(other))
        move = Move.objects.create(
            source=source, target=target, slots=sorted(slots), token=secrets.token_hex(4)
        )
        _publish()
    return move


def advance(move: Move, to: str, **changes: Any) -> None:
    """Write that the move is in another state now. Raises MoveOvertaken when it was not in the one
    that this process believes.
    """
    primary = conf.primary()
    with transaction.atomic(using=primary, durable=True):
        with connections[primary].cursor() as cursor:
            cursor.execute("SET LOCAL synchronous_commit = on")
        mine = Move.objects.filter(pk=move.pk, state=move.state)
        changes = {"state": to, "changed_at": timezone.now(), "problem": "", **changes}
        if not mine.update(**changes):
            raise MoveOvertaken(
                f"Another process went on with {move}, which this one left in the state "
                f"{move.state}. See `manage.py shards status`."
            )
        if to == State.SWITCHED:
            _switch(move)
        if to in _PUBLISHED:
            _publish()
    for field, value in changes.items():
        setattr(move, field, value)


def note_problem(move: Move, problem: str) -> None:
    """Write why the move stopped, for `shards status`; the state stays."""
    Move.objects.filter(pk=move.pk, state=move.state).update(problem=problem)


def name(move: Move) -> str:
    """What the move's publication, subscription and replication slot are called."""
    return f"{PREFIX}{move.pk}_{move.token}"


def _publish() -> None:
    Cluster.objects.update(map_version=F("map_version") + 1)


def _switch(move: Move) -> None:
    version = Cluster.objects.values_list("map_version", flat=True).get() + 1
    moved = Slot.objects.filter(slot__in=move.slots, shard=move.source)
    if moved.update(shard=move.target, version=version) != len(move.slots):
        raise MoveOvertaken(
            f"The slot map does not give {move.source} all slots of {move} any more. Somebody "
            f"changed it by hand: see `manage.py shards check`."
        )


def _other(move: Move) -> str:
    return (
        f"{move} is not finished; it is in the state {move.state}. Go on with it, `manage.py "
        f"shards move --resume`, or give it up, `manage.py shards move --abort`."
    )
