"""Writes that follow a slot to its new owner."""

from collections.abc import Callable
from time import monotonic
from typing import TypeVar

from django.db import DatabaseError, connections

from sharding import conf, slot_cache
from sharding.errors import SlotMoved

__all__ = ["follow", "run_again"]

_Result = TypeVar("_Result")

_RETRIED = {"40001", "40P01"}  # serialization_failure, deadlock_detected


def follow(write: Callable[[], _Result], *, pinned: str | None = None) -> _Result:
    """Call `write`, again and again while it is refused because slots move; return its result.

    It must ask for the owner each time, and be refused as a whole. Raises SlotMoved inside a
    transaction, which cannot be repeated from here; where the caller named a shard (`pinned`) that
    does not own the slot any more; and after `conf.move_patience()`.
    """
    deadline = monotonic() + conf.move_patience()
    while True:
        try:
            return write()
        except SlotMoved as error:
            if connections[error.alias].in_atomic_block or monotonic() > deadline:
                raise
            slot_cache.pause()
            if pinned and slot_cache.current().owners[error.slot or 0] != pinned:
                raise


def run_again(transaction: Callable[[], _Result], *, alias: Callable[[], str]) -> _Result:
    """Call a function that is one transaction, again while it is undone because its slot moves, or
    because another transaction came in its way.
    """
    deadline = monotonic() + conf.move_patience()
    while True:
        try:
            return transaction()
        except (SlotMoved, DatabaseError) as error:
            again = isinstance(error, SlotMoved) or _sqlstate(error) in _RETRIED
            if not again or connections[alias()].in_atomic_block or monotonic() > deadline:
                raise
            slot_cache.pause()


def _sqlstate(error: BaseException) -> str | None:
    return getattr(error.__cause__, "sqlstate", None)
