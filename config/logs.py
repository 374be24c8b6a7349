"""How the log looks: one JSON object a line in production, a line of text for people.

Each record says in which request it was written and, where there is one, about which database.
"""

import logging
from contextvars import ContextVar
from typing import Any

from pythonjsonlogger.core import RESERVED_ATTRS

__all__ = ["Context", "configuration", "current_request"]

# The id of the request that is being answered, or "".
current_request: ContextVar[str] = ContextVar("current_request", default="")

_JSON = {
    "()": "pythonjsonlogger.json.JsonFormatter",
    "fmt": "{levelname}{name}{message}",
    "style": "{",
    "timestamp": True,
    "rename_fields": {"levelname": "level", "name": "logger"},
    # What Django adds for its own handlers: a request shows its query string, which may be private.
    "reserved_attrs": [
        *RESERVED_ATTRS,
        *("request", "server_time", "context", "params", "sql", "color_message"),
    ],
}
_TEXT = {"format": "%(asctime)s %(levelname)s %(name)s %(context)s%(message)s"}


class Context(logging.Filter):
    """Adds `request_id` and `alias` to a record, and both in brackets as `context`."""

    def filter(self, record: logging.LogRecord) -> bool:
        # Django's own line about a response comes when the request is over; it carries it along.
        request = current_request.get() or getattr(record.__dict__.get("request"), "id", "")
        alias = record.__dict__.get("alias") or _alias(record)
        known = [text for text in (request, alias) if text]
        context = f"[{' '.join(known)}] " if known else ""
        record.__dict__.update(request_id=request, alias=alias, context=context)
        return True


def configuration(*, json: bool) -> dict[str, Any]:
    """Return Django's LOGGING."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {**_JSON}, "text": {**_TEXT}},
        "filters": {"context": {"()": Context}},
        "handlers": {
            "console": {
                "class": "logging.StreamHandler",
                "formatter": "json" if json else "text",
                "filters": ["context"],
            }
        },
        "root": {"handlers": ["console"], "level": "INFO"},
        "loggers": {
            # The pool repeats "error connecting" with growing pauses; what failed is said by the
            # error that reaches the caller.
            "psycopg.pool": {"level": "ERROR"},
            # Not through the handlers that Django gives these: each line came twice, or not at all.
            "django": {"level": "INFO"},
            "django.server": {"level": "INFO", "propagate": True},
            # One line for each request. runserver has its own.
            "config.requests": {"level": "INFO" if json else "WARNING"},
        },
    }


def _alias(record: logging.LogRecord) -> str:
    """The database that the record's error, given as such or in its text, comes from."""
    error = record.exc_info[1] if record.exc_info else None
    arguments = record.args if isinstance(record.args, tuple) else ()
    found = (getattr(each, "alias", "") for each in (error, *arguments))
    return next((alias for alias in found if isinstance(alias, str) and alias), "")
