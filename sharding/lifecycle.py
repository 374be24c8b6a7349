"""The end of a process: its connections are closed whether it was asked to stop or failed."""

import atexit
import os
import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

__all__ = ["install"]

_Handler = Callable[[int, FrameType | None], Any] | int | None

_before: _Handler = signal.SIG_DFL
_process = 0


def install() -> None:
    """Close every connection and pool on SIGTERM (exit 0), on an uncaught error, at the end.

    For commands and for servers that do not handle SIGTERM themselves; call it in the main thread.
    """
    global _before, _process
    _process = os.getpid()
    handler = signal.signal(signal.SIGTERM, _stop)
    if handler is not _stop:
        _before = handler
        atexit.register(_disconnect)
        os.register_at_fork(after_in_child=_restore)


def _stop(number: int, frame: FrameType | None) -> None:
    if os.getpid() != _process:  # a child that got the signal before it could restore the handler
        _restore()
        signal.raise_signal(number)
        return
    # A second one must not interrupt the closing: who cannot wait sends SIGKILL.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # As an exception, so that transactions roll back and `finally` runs; atexit does the rest.
    raise SystemExit(0)


def _restore() -> None:
    """Let a forked child end as it would have without us, which a pool of workers relies on.

    SystemExit would run the parent's `finally` blocks in the child, or be caught there.
    """
    if signal.getsignal(signal.SIGTERM) is _stop:
        signal.signal(signal.SIGTERM, _before)


def _disconnect() -> None:
    from django.conf import settings  # not before the process has chosen its settings

    if settings.configured:
        from sharding.databases import DatabaseManager

        DatabaseManager().disconnect()
