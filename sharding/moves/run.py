"""A move from state to state. Every step may be done again: a move goes on from where it is."""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from time import monotonic

from django.db import DatabaseError, connections

from sharding import conf
from sharding.errors import MoveFailed, MoveOvertaken, MoveRefused
from sharding.models.moves import Move
from sharding.moves import cleaning, copying, handover, prechecks, record, verifying
from sharding.moves.copying import Progress, Report

__all__ = ["abort", "begin", "only_mover", "resume", "run"]

State = Move.State

_LOCK = 5_716_304_229_018_444  # any number, but the same in every process
_ATTEMPTS = 100  # at fencing, before the move gives up for now
_MAY_ABORT = (
    State.PLANNED,
    State.COPYING,
    State.CATCHING_UP,
    State.VERIFIED,
    State.FENCED,
    State.ABORTING,
)


def begin(source: str, target: str, slots: Collection[int]) -> Move:
    """Check that a move can be made, and publish it. Raises MoveRefused with nothing touched."""
    prechecks.require(source, target, slots)
    return record.create(source, target, slots)


def run(move: Move, report: Report) -> None:
    """Take a move to its end. Raises MoveFailed, MoveOvertaken and Django's database errors; what
    was done stays, and `resume` goes on from there.
    """
    try:
        while move.state not in record.ENDED:
            report(Progress(State(move.state).value))
            _STEPS[State(move.state)](move, report)
    except (MoveFailed, DatabaseError) as error:
        if isinstance(error, MoveOvertaken):
            _tidy(move)
        else:
            _note(move, error)
        raise


def resume() -> Move:
    """Return the move that stopped on its way. Raises MoveRefused when there is none."""
    if (move := record.active()) is None:
        raise MoveRefused("No move is under way, so there is none to go on with.")
    return move


def abort(move: Move, report: Report) -> None:
    """Give a move up. Raises MoveRefused past the point of no return, MoveFailed."""
    if move.state not in _MAY_ABORT:
        raise MoveRefused(
            f"{move} is in the state {move.state}: {move.source} has given the slots up, so the "
            f"only way is forward. Run `manage.py shards move --resume`."
        )
    if move.state != State.ABORTING:
        record.advance(move, State.ABORTING)
    run(move, report)
    if move.state != State.ABORTED:
        raise MoveRefused(
            f"{move.source} had given the slots up already, so the move went on to its end: {move}."
        )


@contextmanager
def only_mover() -> Iterator[None]:
    """Keep a second mover away, as a courtesy: what makes it safe are the states. Raises
    MoveRefused.
    """
    connection = connections[conf.primary()]
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(%s)", [_LOCK])
        if cursor.fetchone() != (True,):
            raise MoveRefused("Another process is moving slots just now. Wait until it is done.")
    try:
        yield
    finally:
        # With the connection lost, the server has let go of the lock already.
        if connection.connection is not None and connection.is_usable():
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_unlock(%s)", [_LOCK])


def _planned(move: Move, report: Report) -> None:
    copying.announce(move)
    record.advance(move, State.COPYING)


def _copying(move: Move, report: Report) -> None:
    copying.copy(move, report)
    record.advance(move, State.CATCHING_UP)


def _catching_up(move: Move, report: Report) -> None:
    move.handing_over_since = monotonic()
    copying.catch_up(move, report)
    rows = verifying.verify(move, report)
    record.advance(move, State.VERIFIED, rows=rows)


def _verified(move: Move, report: Report) -> None:
    record.advance(move, State.FENCED)


def _fenced(move: Move, report: Report) -> None:
    for attempt in range(_ATTEMPTS):
        try:
            handover.hold(move)
            break
        except handover.TooSlow as error:
            report(Progress(str(error)))
            if handover.let_go(move) and attempt + 1 == _ATTEMPTS:
                record.advance(move, State.CATCHING_UP)
                raise
            copying.catch_up(move, report)
    handover.give_up(move)
    record.advance(move, State.MOVED)


def _moved(move: Move, report: Report) -> None:
    handover.receive_rest(move, report)
    record.advance(move, State.SWITCHED)


def _switched(move: Move, report: Report) -> None:
    handover.take_over(move)
    record.advance(move, State.OWNED)


def _owned(move: Move, report: Report) -> None:
    cleaning.clean(move, report)
    record.advance(move, State.CLEANED)


def _aborting(move: Move, report: Report) -> None:
    try:
        cleaning.undo(move, report)
    except MoveOvertaken:
        if not handover.gave_up(move):
            raise
        record.advance(move, State.MOVED)
        return
    record.advance(move, State.ABORTED)


_STEPS: dict[Move.State, Callable[[Move, Report], None]] = {
    State.PLANNED: _planned,
    State.COPYING: _copying,
    State.CATCHING_UP: _catching_up,
    State.VERIFIED: _verified,
    State.FENCED: _fenced,
    State.MOVED: _moved,
    State.SWITCHED: _switched,
    State.OWNED: _owned,
    State.ABORTING: _aborting,
}


def _tidy(move: Move) -> None:
    if Move.objects.filter(pk=move.pk, state__in=record.ENDED).exists():
        cleaning.tidy(move)


def _note(move: Move, error: Exception) -> None:
    with suppress(DatabaseError):  # the primary may be what failed; the error itself is raised
        record.note_problem(move, str(error))
