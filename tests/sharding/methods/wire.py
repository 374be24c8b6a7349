"""What really goes to each database: the statements in libpq's own trace of its connection.

Django's log and wrappers would not do: while one of them watches, a fan-out asks one shard after
the other, and what is to be watched is also how it asks all at once.
"""

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from tempfile import TemporaryFile
from typing import Any

from django.db import connections
from psycopg import pq

__all__ = ["statements", "watched"]

_STATEMENT = re.compile(r'^F\t\d+\t(?:Query|Parse)\t(?: "")? "(.*?)"(?: [\d ]+)?$', re.M | re.S)


@contextmanager
def statements() -> Iterator[dict[str, list[str]]]:
    """Collect, alias -> SQL, what the block sends to any database; filled at the block's end."""
    sent: dict[str, list[str]] = {}
    with ExitStack() as stack:
        for alias in connections:
            stack.enter_context(_traced(alias, sent))
        yield sent


@contextmanager
def watched() -> Iterator[None]:
    """Have a wrapper around every statement, as monitoring does: shards are asked in turn."""

    def unchanged(execute: Any, *args: Any) -> Any:
        return execute(*args)

    with ExitStack() as stack:
        for alias in connections:
            stack.enter_context(connections[alias].execute_wrapper(unchanged))
        yield


@contextmanager
def _traced(alias: str, sent: dict[str, list[str]]) -> Iterator[None]:
    connections[alias].ensure_connection()
    pgconn = connections[alias].connection.pgconn
    with TemporaryFile() as trace:
        pgconn.trace(trace.fileno())
        pgconn.set_trace_flags(pq.Trace.SUPPRESS_TIMESTAMPS)
        try:
            yield
        finally:
            pgconn.untrace()
            trace.seek(0)
            sent[alias] = _STATEMENT.findall(trace.read().decode())
