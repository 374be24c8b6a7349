"""JSON in requests: nothing that PostgreSQL could not store. Django bounds its size."""

import math
from collections.abc import Mapping
from typing import IO, Any

from rest_framework.exceptions import ParseError
from rest_framework.parsers import JSONParser

__all__ = ["StorableJSONParser"]

_DEEPEST = 50


class StorableJSONParser(JSONParser):
    """Reads one object that can be stored."""

    def parse(
        self,
        stream: IO[Any],
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> Any:
        try:
            parsed = super().parse(stream, media_type, parser_context)
        except RecursionError:
            raise _too_deep() from None
        if not isinstance(parsed, dict):
            raise ParseError("The body must be one JSON object.")
        _require_storable(parsed)
        return parsed


def _require_storable(value: Any, depth: int = 0) -> None:
    if depth > _DEEPEST:
        raise _too_deep()
    if isinstance(value, dict):
        for key, inner in value.items():
            _require_text(key)
            _require_storable(inner, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            _require_storable(inner, depth + 1)
    elif isinstance(value, str):
        _require_text(value)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ParseError("A number in the body is too large.")


def _require_text(text: str) -> None:
    """JSON can spell characters that are none: NUL, and halves of a pair."""
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise ParseError("A text in the body contains \\u0000 or half of a surrogate pair.")


def _too_deep() -> ParseError:
    return ParseError(f"The body is nested more than {_DEEPEST} levels deep.")
