"""How the API answers when something fails."""

import logging
from typing import Any

from rest_framework import status
from rest_framework.response import Response
from rest_framework.views import exception_handler

from sharding import conf
from sharding.errors import DatabaseUnavailable

__all__ = ["respond"]

logger = logging.getLogger(__name__)

_RETRY_AFTER = 5  # seconds


def respond(error: Exception, context: dict[str, Any]) -> Response | None:
    """Answer 503 where a database is down, and what DRF answers to all other errors."""
    if not isinstance(error, DatabaseUnavailable):
        return exception_handler(error, context)
    # The error's own text names hosts and sockets: for the log, not for everybody.
    logger.error("%s", error)
    name = conf.label(error.alias)
    return Response(
        {"detail": f"Database {name} cannot be reached. Try again soon.", "database": name},
        status=status.HTTP_503_SERVICE_UNAVAILABLE,
        headers={"Retry-After": str(_RETRY_AFTER)},
    )
