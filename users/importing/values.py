"""The values of one column: from texts as people write them to texts as COPY takes them.

Every parser takes the texts of one column for many lines at once, and returns as many. It raises
ValueError if any is wrong; given that text alone, with the reason. Whole columns, because one
function call for each value costs more than the work.
"""

import json
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import lru_cache, partial
from typing import Any, cast
from uuid import UUID, uuid4

from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db.models import Field

from users.importing.staging import NULL, escaped
from users.models import Profile, User

__all__ = ["PARSERS", "Parser", "unique"]

Parser = Callable[[Sequence[str]], Sequence[str]]

# What these match, the slow and thorough ways further down accept as well: tests hold them to it.
_USUAL_EMAIL = re.compile(
    r"[a-z0-9_+-]+(?:\.[a-z0-9_+-]+)*@(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]{2,63}",
    re.ASCII,
)
_USUAL_TIMESTAMP = re.compile(
    r"[1-9]\d{3}-(?:0[1-9]|1[0-2])-(?:0[1-9]|1\d|2[0-8])[T ]"
    r"(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d{3}(?:\d{3})?)?(?:Z|[+-](?:0\d|1[0-4]):[0-5]\d)",
    re.ASCII,
)
_USUAL_UUID = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", re.ASCII
)
_UUID = re.compile(r"[0-9a-f]{8}(?:(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{24})", re.ASCII)
_COUNTRY = re.compile(r"(?:[A-Za-z]{2})?", re.ASCII)
_BOOLEANS = {
    "": NULL,
    **dict.fromkeys(("true", "t", "yes", "y", "1"), "t"),
    **dict.fromkeys(("false", "f", "no", "n", "0"), "f"),
}
_PLANS = {"": NULL, **{plan: plan for plan in Profile.Plan.values}}


def _ids(texts: Sequence[str]) -> list[str]:
    lowered = [text.lower() for text in texts]
    usual = _USUAL_UUID.fullmatch
    return [text if usual(text) else _id(text) for text in lowered]


def _id(text: str) -> str:
    if not text:
        return str(uuid4())
    if not _UUID.fullmatch(text):
        raise ValueError("is no UUID")
    user_id = str(UUID(text))
    if not _USUAL_UUID.fullmatch(user_id):
        raise ValueError(
            "is no UUID of version 4: the first 32 bits decide the shard, so they must be random"
        )
    return user_id


def _emails(texts: Sequence[str]) -> Sequence[str]:
    emails = [text.lower() for text in texts]
    _require_length(emails, _length(User, "email"))
    usual = _USUAL_EMAIL.fullmatch
    for email in emails:
        if not usual(email):
            _require_email(email)
    return escaped(emails)


def _require_email(email: str) -> None:
    if not email:
        raise ValueError("is missing")
    try:
        validate_email(email)
    except ValidationError:
        raise ValueError("is no email address") from None


def _booleans(texts: Sequence[str]) -> list[str]:
    try:
        return [_BOOLEANS[text.lower()] for text in texts]
    except KeyError:
        raise ValueError("is neither true nor false") from None


def _timestamps(texts: Sequence[str]) -> list[str]:
    usual = _USUAL_TIMESTAMP.fullmatch
    return [text if usual(text) else _timestamp(text) for text in texts]


def _timestamp(text: str) -> str:
    """Accept ISO 8601 in all forms that Python knows; without a time zone it is UTC."""
    if not text:
        return NULL
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        # To UTC here: what the years 1 to 9999 do not hold there, Python could not read again.
        return moment.astimezone(UTC).isoformat()
    except (ValueError, OverflowError):
        raise ValueError("is no ISO 8601 timestamp, such as 2026-10-31T18:30:00+01:00") from None


def _countries(texts: Sequence[str]) -> list[str]:
    return [_country(text) for text in texts]


@lru_cache(maxsize=1_000)
def _country(text: str) -> str:
    if not _COUNTRY.fullmatch(text):
        raise ValueError("is not two letters of ISO 3166, such as CH")
    return text.upper()


def _plans(texts: Sequence[str]) -> list[str]:
    try:
        return [_PLANS[text] for text in texts]
    except KeyError:
        raise ValueError(f"is none of {', '.join(Profile.Plan.values)}") from None


def _texts(texts: Sequence[str], *, at_most: int | None = None) -> Sequence[str]:
    if at_most is not None:
        _require_length(texts, at_most)
    return escaped(texts)


def _length(model: type[User] | type[Profile], name: str) -> int | None:
    return cast("Field[Any, Any]", model._meta.get_field(name)).max_length


def _require_length(texts: Sequence[str], length: int | None) -> None:
    if length is not None and max(map(len, texts), default=0) > length:
        raise ValueError(f"is longer than {length} characters")


def _settings(texts: Sequence[str]) -> list[str]:
    # Many people have the same few; long ones are not kept.
    return [_usual_object(text) if len(text) < 300 else _object(text) for text in texts]


def _object(text: str) -> str:
    if not text:
        return NULL
    try:
        found = _decode(text)
        # Written anew: PostgreSQL takes fewer texts for JSON than Python does.
        stored = _encode(found)
        stored.encode()
    except (ValueError, RecursionError):
        raise ValueError("is no JSON that can be stored") from None
    if not isinstance(found, dict):
        raise ValueError("is no JSON object")
    if r"\u0000" in stored and _holds_nul(found):
        raise ValueError("holds a NUL character")
    return escaped([stored])[0]


_usual_object = lru_cache(maxsize=5_000)(_object)


def _holds_nul(value: object) -> bool:
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        return any(_holds_nul(part) for pair in value.items() for part in pair)
    return isinstance(value, list) and any(map(_holds_nul, value))


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make the dictionary of a JSON object. Raises ValueError where a name comes twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name comes twice")
    return found


_decode = json.JSONDecoder(object_pairs_hook=unique).decode
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode

PARSERS: dict[str, Parser] = {
    "id": _ids,
    "email": _emails,
    "name": partial(_texts, at_most=_length(User, "name")),
    "is_active": _booleans,
    "date_joined": _timestamps,
    "last_login": _timestamps,
    "display_name": partial(_texts, at_most=_length(Profile, "display_name")),
    "country": _countries,
    "plan": _plans,
    "bio": _texts,
    "settings": _settings,
}
