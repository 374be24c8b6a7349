"""What a request may ask of which database, and how long it asked.

In a context variable, because under ASGI the code of one request runs in several threads. The
backend looks here for each cursor; outside of requests there is nothing, and all is allowed.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from sharding import conf
from sharding.errors import OutsideAnalytics
from sharding.observing import Tally, tallying

__all__ = ["Scope", "authenticating", "check", "entered"]

logger = logging.getLogger(__name__)


@dataclass
class Scope:
    """One request: its path, whether it is for reports, and its statements by alias."""

    path: str
    reports: bool = False
    timings: Tally = field(default_factory=dict)


_scope: ContextVar[Scope | None] = ContextVar("scope", default=None)
_authenticating: ContextVar[bool] = ContextVar("authenticating", default=False)


@contextmanager
def entered(scope: Scope) -> Iterator[None]:
    """Make the block a part of the request."""
    token = _scope.set(scope)
    try:
        with tallying(scope.timings):
            yield
    finally:
        _scope.reset(token)


@contextmanager
def authenticating() -> Iterator[None]:
    """Let a request for reports ask the primary who sent it, and what they may do."""
    token = _authenticating.set(True)
    try:
        yield
    finally:
        _authenticating.reset(token)


def check(alias: str) -> None:
    """Raise OutsideAnalytics when a request for reports is about to ask another database.

    Only logged where `ANALYTICS_STRICT` is off, as it is in production: a report that is slow for
    others is better than none.
    """
    scope = _scope.get()
    if scope is None or not scope.reports or alias == conf.analytics():
        return
    if alias == conf.primary() and _authenticating.get():
        return
    error = OutsideAnalytics(
        f"A request for {scope.path} asked {conf.label(alias)}. Requests below ANALYTICS_PATHS "
        f"read {conf.analytics()} alone, so that reports slow nobody down: read a copy there, or "
        f"serve this under another path."
    )
    if conf.analytics_strict():
        raise error
    logger.warning("%s", error)
