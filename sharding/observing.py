"""Statements and pools as they are measured: by which database, and as part of what.

Metrics register a function; a request keeps a tally. Without either nothing is measured. By
functions, not by Django's signals: this runs with every statement.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from django.db.backends.utils import CursorWrapper
from psycopg_pool import ConnectionPool

__all__ = [
    "FAN_OUT",
    "KEYED",
    "UNSHARDED",
    "ObservedCursor",
    "Observer",
    "Tally",
    "Timing",
    "fanning_out",
    "note",
    "note_pool",
    "observe",
    "observe_pools",
    "tallying",
]

KEYED = "keyed"  # one shard, by a key or by name
FAN_OUT = "fan-out"  # one of several shards that are asked the same
UNSHARDED = "unsharded"  # the primary or analytics

# Takes alias, kind and seconds.
Observer = Callable[[str, str, float], None]
# Takes alias, and how many connections are in use, idle and waited for in this process.
PoolObserver = Callable[[str, int, int, int], None]


@dataclass
class Timing:
    """How many statements were sent to a database, and the seconds that they took."""

    queries: int = 0
    seconds: float = 0.0


Tally = dict[str, Timing]  # by alias

_SHARD = "shard_"  # how conf.shards() knows them too

_observers: list[Observer] = []
_pool_observers: list[PoolObserver] = []
_fanning_out: ContextVar[bool] = ContextVar("fanning_out", default=False)
_tallies: ContextVar[tuple[Tally, ...]] = ContextVar("tallies", default=())


def observe(observer: Observer) -> None:
    """Call the function after every statement from now on; once, however often it is given."""
    if observer not in _observers:
        _observers.append(observer)


def observe_pools(observer: PoolObserver) -> None:
    """Call the function whenever a connection has left its pool or come back to it."""
    if observer not in _pool_observers:
        _pool_observers.append(observer)


@contextmanager
def tallying(tally: Tally) -> Iterator[None]:
    """Count the statements of the block in `tally`, as well as in those of the blocks around."""
    token = _tallies.set((*_tallies.get(), tally))
    try:
        yield
    finally:
        _tallies.reset(token)


def note(alias: str, seconds: float, *, kind: str = "") -> None:
    """Tell the observers of one statement, and count it in the tallies."""
    for observer in _observers:
        observer(alias, kind or _kind(alias), seconds)
    for tally in _tallies.get():
        timing = tally.setdefault(alias, Timing())
        timing.queries += 1
        timing.seconds += seconds


def note_pool(alias: str, pool: ConnectionPool[Any]) -> None:
    """Tell the observers of one pool."""
    if _pool_observers:
        stats = pool.get_stats()
        idle, waiting = stats["pool_available"], stats.get("requests_waiting", 0)
        for observer in _pool_observers:
            observer(alias, stats["pool_size"] - idle, idle, waiting)


@contextmanager
def fanning_out(several: bool = True) -> Iterator[None]:
    """Count the statements of the block as parts of a query over several shards."""
    token = _fanning_out.set(several)
    try:
        yield
    finally:
        _fanning_out.reset(token)


def _kind(alias: str) -> str:
    if _fanning_out.get():
        return FAN_OUT
    return KEYED if alias.startswith(_SHARD) else UNSHARDED


class ObservedCursor(CursorWrapper):
    """Django's cursor, whose statements are noted."""

    def _execute(self, sql: Any, params: Any, *ignored: Any) -> Any:
        if not (_observers or _tallies.get()):
            return super()._execute(sql, params, *ignored)
        start = perf_counter()
        try:
            return super()._execute(sql, params, *ignored)
        finally:
            note(self.db.alias, perf_counter() - start)

    def _executemany(self, sql: Any, param_list: Any, *ignored: Any) -> Any:
        if not (_observers or _tallies.get()):
            return super()._executemany(sql, param_list, *ignored)
        start = perf_counter()
        try:
            return super()._executemany(sql, param_list, *ignored)
        finally:
            note(self.db.alias, perf_counter() - start)
