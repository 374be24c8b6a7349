"""The API's settings that need more than a line. Pure: reads the mapping it is given."""

import re
from collections.abc import Mapping
from typing import Any

from django.core.exceptions import ImproperlyConfigured

__all__ = ["SPECTACULAR", "throttle_rates"]

# Scope -> the variable that changes it, and how many requests are allowed without it.
_RATES = {
    "anon": ("API_RATE_ANONYMOUS", "60/minute"),
    "user": ("API_RATE_USER", "600/minute"),
    "login": ("API_RATE_LOGIN", "10/minute"),
}
_RATE = re.compile(r"[1-9]\d*/(second|minute|hour|day)", re.ASCII)

SPECTACULAR: dict[str, Any] = {
    "TITLE": "Many databases",
    "DESCRIPTION": "One application over many PostgreSQL servers: accounts, profiles, reports.",
    "VERSION": "1",
    "OAS_VERSION": "3.1.1",
    "SERVE_INCLUDE_SCHEMA": False,
    "SCHEMA_PATH_PREFIX": "/api",
    "COMPONENT_SPLIT_REQUEST": True,
    "ENUM_NAME_OVERRIDES": {"PlanEnum": "users.models.Profile.Plan"},
    # Files of the sidecar package: no page loads anything from another host.
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
}


def throttle_rates(environ: Mapping[str, str]) -> dict[str, str | None]:
    """Return how many requests each scope of DRF's throttles allows; None for `off`.

    Raises ImproperlyConfigured with the name of a variable that is malformed.
    """
    return {
        scope: _rate(variable, environ.get(variable) or default)
        for scope, (variable, default) in _RATES.items()
    }


def _rate(variable: str, value: str) -> str | None:
    if value == "off":
        return None
    if not _RATE.fullmatch(value):
        raise ImproperlyConfigured(
            f"{variable} must be a number per second, minute, hour or day, e.g. 600/minute, or "
            f"off; it is {value!r}."
        )
    return value
