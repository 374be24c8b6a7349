"""The list of a sharded model: one question to all shards for its page, and one for the count."""

from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.views.main import ChangeList
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.utils.functional import cached_property

from sharding import conf
from sharding.errors import DatabaseUnavailable

__all__ = [
    "BoundedChangeList",
    "BoundedModelAdmin",
    "BoundedPaginator",
    "ShardedChangeList",
    "selects_all",
]


class BoundedPaginator(Paginator):
    """Counts no further than `limit`: pages beyond would cost every shard the whole way there."""

    limit = 10_000
    template_name = "sharding/pagination.html"  # Unfold asks; Django's own theme does not

    missing: frozenset[str] = frozenset()

    @cached_property
    def count(self) -> int:
        return min(self._number, self.limit)

    @property
    def has_more(self) -> bool:
        """Whether there are more rows than the limit."""
        return self._number > self.limit

    @cached_property
    def _number(self) -> int:
        matching: Any = self.object_list
        if (known := getattr(matching, "_result_cache", None)) is not None:
            return len(known)
        counted = matching.order_by()[: self.limit + 1]
        number = counted.count()
        self.missing = getattr(counted, "missing_shards", frozenset())
        return number


class BoundedChangeList(ChangeList):
    """A change list whose count may end at the paginator's limit."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        if getattr(self.paginator, "has_more", False):
            self.full_result_count = self.result_count  # so that no title gives it as exact


class ShardedChangeList(BoundedChangeList):
    """A change list that shows the other shards' rows when one is down, and knows which is."""

    missing: frozenset[str] = frozenset()
    queryset: Any

    def get_queryset(self, request: HttpRequest, exclude_parameters: Any = None) -> Any:
        self.root_queryset: Any = self.root_queryset.across_shards(partial=True)
        return super().get_queryset(request, exclude_parameters)

    def get_results(self, request: HttpRequest) -> None:
        try:
            self._load(request)
        except DatabaseUnavailable as error:  # of the only shard that was asked
            if error.alias == conf.primary():
                raise
            self.queryset = self.queryset.none()
            self._load(request)
            self.missing |= {error.alias}

    def _load(self, request: HttpRequest) -> None:
        first = None if self.page_num > 1 or self.show_all else self._first_page()
        super().get_results(request)
        rows: Any = self.result_list if first is None else first
        # Asks the shards now: templates would ask too late for a warning.
        self.result_list = list(rows)[: self.list_per_page] if rows is first else rows
        self.missing = self._missing(rows)

    def _first_page(self) -> Any:
        """Return its rows, and one more if there is another page.

        A search that finds a few rows, or none, may have read the whole table. So that counting
        them does not read it again, nor the date hierarchy, the list is then narrowed to them.
        """
        rows = self.queryset[: self.list_per_page + 1]
        if len(rows) <= self.list_per_page:
            keys = {row.shard_key_value for row in rows}
            ids = [row.pk for row in rows]
            key = self.model.shard_key  # type: ignore[attr-defined]
            self.queryset = self.queryset.filter(**{f"{key}__in": keys}, pk__in=ids)
            self.queryset._result_cache = list(rows)
        return rows

    def _missing(self, rows: Any) -> frozenset[str]:
        len(rows)
        return rows.missing_shards | getattr(self.paginator, "missing", frozenset())


class BoundedModelAdmin(admin.ModelAdmin):
    """A ModelAdmin whose lists take no longer with more rows, nor act on more than they count."""

    show_full_result_count = False
    paginator = BoundedPaginator

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return BoundedChangeList

    def response_action(self, request: HttpRequest, queryset: Any) -> HttpResponse | None:
        if selects_all(request) and self._are_too_many(request, queryset):
            limit = f"{BoundedPaginator.limit:,}"
            text = f"More than {limit} rows match. Narrow the list down, then choose all again."
            self.message_user(request, text, messages.WARNING)
            return None
        return super().response_action(request, queryset)

    def _are_too_many(self, request: HttpRequest, queryset: Any) -> bool:
        paginator = self.get_paginator(request, queryset, self.list_per_page)
        return isinstance(paginator, BoundedPaginator) and paginator.has_more


def selects_all(request: HttpRequest) -> bool:
    """Whether an action is asked for on all pages, not on the rows that were ticked."""
    return request.POST.get("select_across") == "1"
