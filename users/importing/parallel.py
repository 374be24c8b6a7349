"""The same work on several databases at once, on the caller's own connections."""

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

__all__ = ["at_once"]


def at_once(work: Mapping[str, Callable[[BaseDatabaseWrapper], None]]) -> None:
    """Call each alias's function with its connection, and return when all are done.

    The connections are this thread's own, lent: a transaction that is open on one goes on.
    Raises the first error; the functions of the other aliases have ended then as well.
    """
    lent = {alias: connections[alias] for alias in work}
    with ThreadPoolExecutor(max_workers=max(1, len(work))) as pool:
        running = [pool.submit(_call, work[alias], lent[alias]) for alias in work]
        try:
            for future in running:
                future.result()
        except (KeyboardInterrupt, SystemExit):
            # Leaving the block waits for them, which one lock could make last for ever.
            _cancel(lent.values(), running)
            raise


def _call(function: Callable[[BaseDatabaseWrapper], None], connection: BaseDatabaseWrapper) -> None:
    connection.inc_thread_sharing()
    connections[connection.alias] = connection
    try:
        function(connection)
    finally:
        del connections[connection.alias]
        connection.dec_thread_sharing()


def _cancel(lent: Iterable[BaseDatabaseWrapper], running: list[Future[None]]) -> None:
    """Cancel until all have ended: who was between two statements goes on to the next one."""
    while wait(running, timeout=0).not_done:
        for connection in lent:
            if connection.connection is not None:
                connection.connection.cancel_safe(timeout=1)
        wait(running, timeout=0.05)
