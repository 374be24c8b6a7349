"""Statements and pools as they are measured: by which database, and as part of what.

Whoever counts them, for a log or for metrics, registers a function; without one nothing is
measured. By functions, not by Django's signals: this runs with every statement.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from time import perf_counter
from typing import Any

from django.db.backends.utils import CursorWrapper
from psycopg_pool import ConnectionPool

__all__ = ["FAN_OUT", "KEYED", "UNSHARDED", "ObservedCursor", "Observer", "fanning_out", "observe"]

KEYED = "keyed"  # one shard, by a key or by name
FAN_OUT = "fan-out"  # one of several shards that are asked the same
UNSHARDED = "unsharded"  # the primary or analytics

# Takes alias, kind and seconds.
Observer = Callable[[str, str, float], None]
# Takes alias, and how many connections are in use, idle and waited for in this process.
PoolObserver = Callable[[str, int, int, int], None]

_SHARD = "shard_"  # how conf.shards() knows them too

_observers: list[Observer] = []
_pool_observers: list[PoolObserver] = []
_fanning_out: ContextVar[bool] = ContextVar("fanning_out", default=False)


def observe(observer: Observer) -> None:
    """Call the function after every statement from now on; once, however often it is given."""
    if observer not in _observers:
        _observers.append(observer)


def observe_pools(observer: PoolObserver) -> None:
    """Call the function whenever a connection has left its pool or come back to it."""
    if observer not in _pool_observers:
        _pool_observers.append(observer)


def note(alias: str, seconds: float, *, kind: str = "") -> None:
    """Tell the observers of one statement."""
    for observer in _observers:
        observer(alias, kind or _kind(alias), seconds)


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
        if not _observers:
            return super()._execute(sql, params, *ignored)
        start = perf_counter()
        try:
            return super()._execute(sql, params, *ignored)
        finally:
            note(self.db.alias, perf_counter() - start)

    def _executemany(self, sql: Any, param_list: Any, *ignored: Any) -> Any:
        if not _observers:
            return super()._executemany(sql, param_list, *ignored)
        start = perf_counter()
        try:
            return super()._executemany(sql, param_list, *ignored)
        finally:
            note(self.db.alias, perf_counter() - start)
