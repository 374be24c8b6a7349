"""Who sends a request: tokens as django-rest-knox makes them, and what is known in an outage.

Tokens, sessions and accounts stand on the primary. So that users can read while it is down, each
process remembers for some minutes whom it has seen; nobody can write then anyway.
"""

import re
from hashlib import sha256
from typing import Any

from django.conf import settings
from django.core.cache.backends.locmem import LocMemCache
from django.db import OperationalError
from django.utils import timezone
from knox.auth import TokenAuthentication as KnoxAuthentication
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.permissions import SAFE_METHODS
from rest_framework.request import Request

from users.primary import ask_primary

__all__ = ["TokenAuthentication", "forget", "identify", "remember"]

_TOKEN = re.compile(rb"[0-9a-f]{64}")
_seen = LocMemCache("users.api.authentication", {"OPTIONS": {"MAX_ENTRIES": 5000}})


class TokenAuthentication(KnoxAuthentication):
    """Knox's, with one query a request."""

    def authenticate_credentials(self, token: bytes) -> Any:
        # Knox would decode anything, and ask the database for it.
        if not _TOKEN.fullmatch(token):
            raise AuthenticationFailed("Invalid token.")
        return super().authenticate_credentials(token)

    def _cleanup_token(self, auth_token: Any) -> bool:
        """Say whether this one has expired. The user's others are looked at when one logs in."""
        return auth_token.expiry is not None and auth_token.expiry < timezone.now()


def identify(request: Request) -> None:
    """Set `request.user`. While the primary is down, from memory, and for reading only.

    Raises AuthenticationFailed, DatabaseUnavailable.
    """
    if _credentials(request) is None:
        _ = request.user
        return
    try:
        ask_primary(lambda: request.user)
    except OperationalError:
        found = _seen.get(_key(request)) if request.method in SAFE_METHODS else None
        if found is None:
            raise
        request.user, request.auth = found


def remember(request: Request) -> None:
    """Keep in mind who sent the request, and the permissions that were looked up for it."""
    if request.user.is_authenticated and _credentials(request):
        seconds = getattr(settings, "REMEMBER_LOGINS", 600)
        if expiry := getattr(request.auth, "expiry", None):
            seconds = min(seconds, (expiry - timezone.now()).total_seconds())
        _seen.set(_key(request), (request.user, request.auth), max(seconds, 0))


def forget(request: Request) -> None:
    """Keep in mind no longer who sends this request's credentials."""
    _seen.delete(_key(request))


def _credentials(request: Request) -> tuple[str, str] | None:
    header = request.headers.get("Authorization", "")
    cookie = request.COOKIES.get(settings.SESSION_COOKIE_NAME, "")
    return (header, cookie) if header or cookie else None


def _key(request: Request) -> str:
    """Return what stands for the credentials, all of them; no secret is kept as it is."""
    return sha256(repr(_credentials(request)).encode()).hexdigest()
