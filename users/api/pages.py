"""Pages that go on after the last row of the one before, whatever is written meanwhile.

A page is asked for by the values of that row, so no row is skipped or repeated when others come or
go, on whichever shard; and a page far down costs no more than the first.
"""

import base64
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

from django.db.models import Q
from drf_spectacular.utils import inline_serializer
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.utils.urls import replace_query_param

from users.api.serializers import Strict

__all__ = [
    "NothingAsked",
    "PageQuery",
    "beyond",
    "page",
    "page_schema",
    "queried",
    "read_cursor",
    "read_moment",
]

Row = TypeVar("Row")

_LARGEST = 200


class NothingAsked(Strict):
    """No parameters: one that is given all the same is refused."""


class PageQuery(Strict):
    """The parameters of every list."""

    limit = serializers.IntegerField(min_value=1, max_value=_LARGEST, default=50)
    cursor = serializers.CharField(
        max_length=300, required=False, help_text="Where the page begins. Follow `next`."
    )


def queried(request: Request, parameters: type[serializers.Serializer[Any]]) -> dict[str, Any]:
    """Return the URL's parameters, read by the serializer. Raises ValidationError."""
    twice = [name for name, values in request.query_params.lists() if len(values) > 1]
    if twice:
        raise serializers.ValidationError({name: ["Give this once."] for name in twice})
    # As a plain dict: of a form's, DRF would take what is empty for what is not there.
    given = parameters(data=request.query_params.dict())
    given.is_valid(raise_exception=True)
    return given.validated_data


def page(
    request: Request,
    rows: Sequence[Row],
    *,
    limit: int,
    place: Callable[[Row], Sequence[object]],
    shown: type[serializers.Serializer[Any]],
) -> dict[str, Any]:
    """Return a page of rows, shown by a serializer; one more than `limit` where it is not the last.

    `place` gives the values by which the next page is found, as `read_cursor` will read them.
    """
    following = None
    if len(rows) > limit:
        cursor = _write_cursor(place(rows[limit - 1]))
        following = replace_query_param(request.build_absolute_uri(), "cursor", cursor)
    return {"next": following, "results": shown(rows[:limit], many=True).data}


def page_schema(row: type[serializers.Serializer[Any]]) -> serializers.Serializer[Any]:
    """Describe a page of such rows."""
    name = row.__name__.removesuffix("Serializer")
    following = serializers.URLField(allow_null=True)
    return inline_serializer(f"{name}Page", {"next": following, "results": row(many=True)})


def read_cursor(cursor: str | None, *kinds: Callable[[str], Any]) -> list[Any] | None:
    """Return the values of a cursor, each read by its kind; None for the first page.

    Raises ValidationError for what `page` has not written.
    """
    if cursor is None:
        return None
    try:
        texts = json.loads(base64.b64decode(cursor, altchars=b"-_", validate=True))
        return [kind(text) for kind, text in zip(kinds, texts, strict=True)]
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError):
        text = "This is no cursor of this list. Leave it out to begin anew, then follow `next`."
        raise serializers.ValidationError({"cursor": [text]}) from None


def read_moment(text: str) -> datetime:
    """Read a moment of a cursor. Raises ValueError."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(text)
    return moment.astimezone(UTC)


def beyond(names: Sequence[str], values: Sequence[Any], *, descending: bool = False) -> Q:
    """Return the condition for two columns together: (first, second) beyond the values."""
    side = "lt" if descending else "gt"
    (first, second), (one, two) = names, values
    tied = Q(**{first: one, f"{second}__{side}": two})
    # The first condition follows from the others, and is what an index can begin at.
    return Q(**{f"{first}__{side}e": one}) & (Q(**{f"{first}__{side}": one}) | tied)


def _write_cursor(values: Sequence[object]) -> str:
    text = json.dumps([str(value) for value in values], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode()
