"""The end of a process: its connections are closed whether it was asked to stop or failed."""

import atexit
import os
import signal
import sys
from collections.abc import Callable
from threading import Timer
from types import FrameType
from typing import Any

__all__ = ["install"]

_Handler = Callable[[int, FrameType | None], Any] | int | None

_AGAIN = 0.01  # seconds

_before: _Handler = signal.SIG_DFL
_report: Callable[[Any], Any] = sys.unraisablehook


class _Stopped(SystemExit):
    """The end that SIGTERM asks for."""


def install() -> None:
    """Close every connection and pool on SIGTERM (exit 0), on an uncaught error, at the end.

    For commands and for servers that do not handle SIGTERM themselves; call it in the main thread.
    """
    global _before, _report
    handler = signal.signal(signal.SIGTERM, _stop)
    if handler is not _stop:
        _before = handler
        if sys.unraisablehook is not _unraisable:
            _report, sys.unraisablehook = sys.unraisablehook, _unraisable
        atexit.register(_disconnect)
        os.register_at_fork(before=_hold, after_in_parent=_release, after_in_child=_restore)


def _stop(number: int, frame: FrameType | None) -> None:
    # A second one must not interrupt the closing: who cannot wait sends SIGKILL.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # As an exception, so that transactions roll back and `finally` runs; atexit does the rest.
    raise _Stopped(0)


def _unraisable(found: Any) -> None:
    """Ask once more when it came where Python ignores what is raised: in __del__, or in what every
    import calls at its end.
    """
    if not isinstance(found.exc_value, _Stopped):
        _report(found)
        return
    if signal.getsignal(signal.SIGTERM) is signal.SIG_IGN:  # not replaced by a command's own
        signal.signal(signal.SIGTERM, _stop)
    # Later, or it would be ignored here; and sent to the process, so that it wakes the main thread.
    Timer(_AGAIN, os.kill, [os.getpid(), signal.SIGTERM]).start()


def _hold() -> None:
    # A signal that came to the child before it has restored the handler would be lost.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])


def _release() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])


def _restore() -> None:
    """Let a forked child end as it would have without us, which a pool of workers relies on.

    SystemExit would run the parent's `finally` blocks in the child, or be caught there.
    """
    if signal.getsignal(signal.SIGTERM) is _stop:
        signal.signal(signal.SIGTERM, _before)
    _release()


def _disconnect() -> None:
    from django.conf import settings  # not before the process has chosen its settings

    if settings.configured:
        from sharding.databases import DatabaseManager

        DatabaseManager().disconnect()
