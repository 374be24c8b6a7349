"""Asking a server whether it is there, within seconds and without holding other threads up."""

import selectors
from collections.abc import Callable, Mapping
from selectors import EVENT_READ
from typing import Any

from psycopg import Error, pq

__all__ = [
    "NO_ANSWER",
    "TIMEOUT",
    "Selector",
    "is_alive",
    "is_answer",
    "is_quiet",
    "refusal",
    "why",
]

TIMEOUT = 2  # seconds, the smallest that libpq knows
NO_ANSWER = "its server does not answer"

# poll() needs no system calls to set up and take down, epoll() a dozen for three connections.
Selector = getattr(selectors, "PollSelector", selectors.DefaultSelector)


def is_alive(connection: Any) -> bool:
    """Say whether the server answers on this connection, and soon; close it if not.

    Not by a statement of psycopg's, which would wait for a server that hangs as long as it hangs.
    """
    try:
        if _answers(connection.pgconn):
            return True
    except Error:
        pass
    connection.close()
    return False


def is_quiet(connection: Any) -> bool:
    """Say whether nothing came in since the connection was used, as its end would have."""
    with Selector() as selector:
        selector.register(connection.pgconn.socket, EVENT_READ)
        return not selector.select(0)


def refusal(connect: Callable[..., Any], parameters: Mapping[str, Any]) -> Error | None:
    """Connect once, and return what went wrong.

    Not by PQping(): it tells no reason, and stops all threads of the process while it waits. And
    not without a statement: PgBouncer lets clients in while its server is down.
    """
    once = {**parameters, "connect_timeout": TIMEOUT, "autocommit": True}
    try:
        with connect(**once) as connection:
            connection.execute("")
    except Error as error:
        return error
    return None


def is_answer(error: Error) -> bool:
    """Say whether the server itself refused."""
    return "FATAL:" in str(error)


def why(error: Error) -> str:
    """Return the server's reason, in its own words."""
    return str(error).partition("FATAL:")[2] if is_answer(error) else NO_ANSWER


def _answers(pgconn: "pq.abc.PGconn") -> bool:
    pgconn.send_query(b"")
    pgconn.flush()
    with Selector() as selector:
        selector.register(pgconn.socket, EVENT_READ)
        while selector.select(TIMEOUT):
            pgconn.consume_input()
            while not pgconn.is_busy():
                if pgconn.get_result() is None:
                    return True
    return False
