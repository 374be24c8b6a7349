"""The primary's circuit breaker: during an outage only one caller a second tries it.

Everybody else learns at once that it is down, instead of waiting for a connection that will not
come.
"""

import logging
from collections.abc import Callable
from contextlib import suppress
from threading import Lock
from typing import Any, TypeVar

from django.conf import settings
from django.db import OperationalError, connections
from pybreaker import STATE_CLOSED, STATE_OPEN, CircuitBreaker, CircuitBreakerListener

from sharding.errors import DatabaseUnavailable

__all__ = ["ask_primary", "breaker"]

logger = logging.getLogger(__name__)

_PAUSE = 1.0  # seconds

T = TypeVar("T")


class _OncePerOutage(CircuitBreakerListener):
    """Logs the beginning and the end; the tries in between say nothing new."""

    failing = False

    def state_change(self, cb: Any, old_state: Any, new_state: Any) -> None:
        if new_state.name == STATE_OPEN and not self.failing:
            logger.warning("The primary cannot be reached: accounts are read from copies.")
        elif new_state.name == STATE_CLOSED and self.failing:
            logger.warning("The primary answers again.")
        self.failing = new_state.name != STATE_CLOSED


def _is_no_outage(error: BaseException) -> bool:
    return not isinstance(error, OperationalError)


breaker = CircuitBreaker(
    fail_max=1,
    reset_timeout=_PAUSE,
    exclude=[_is_no_outage],
    listeners=[_OncePerOutage()],
    throw_new_error_on_trip=False,
)
_trying = Lock()


def ask_primary(ask: Callable[[], T]) -> T:
    """Call a function that asks the primary; not while that is known to be down.

    Raises what the function raises, and DatabaseUnavailable. An OperationalError of the function
    is the beginning of an outage; the first statement that is answered again is its end.
    """
    # Not inside the breaker's call(): it holds a lock meanwhile, and all threads would queue.
    if breaker.current_state != STATE_CLOSED:
        _try_again()
    try:
        return ask()
    except OperationalError as error:
        _open(error)
        raise


def _try_again() -> None:
    if not _trying.acquire(blocking=False):
        raise _down()
    try:
        breaker.call(_ping)
    except Exception as error:
        raise _down() from error
    finally:
        _trying.release()


def _ping() -> None:
    with connections[settings.PRIMARY_DATABASE].cursor() as cursor:
        cursor.execute("SELECT 1")


def _open(error: OperationalError) -> None:
    def fail() -> None:
        raise error

    with suppress(Exception):
        breaker.call(fail)


def _down() -> DatabaseUnavailable:
    return DatabaseUnavailable(
        "Database primary cannot be reached: it did not answer a moment ago. Only what lives there "
        "is affected; check its server, then try again.",
        alias=settings.PRIMARY_DATABASE,
    )
