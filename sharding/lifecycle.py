"""The end of a process: its connections are closed whether it was asked to stop or failed."""

import atexit
import signal
import sys
from types import FrameType

__all__ = ["install"]


def install() -> None:
    """Close every connection and pool on SIGTERM (exit 0), on an uncaught error, at the end.

    For commands and for servers that do not handle SIGTERM themselves; call it in the main thread.
    """
    atexit.register(_disconnect)
    signal.signal(signal.SIGTERM, _stop)


def _stop(number: int, frame: FrameType | None) -> None:
    # As an exception, so that transactions roll back and `finally` runs; atexit does the rest.
    sys.exit(0)


def _disconnect() -> None:
    from django.conf import settings  # not before the process has chosen its settings

    if settings.configured:
        from sharding.databases import DatabaseManager

        DatabaseManager().disconnect()
