"""The list of a sharded model: one question to all shards for its page, and one for the count."""

from typing import Any

from django.contrib.admin.views.main import ChangeList
from django.core.paginator import Paginator
from django.http import HttpRequest
from django.utils.functional import cached_property

from sharding import conf
from sharding.errors import DatabaseUnavailable

__all__ = ["BoundedPaginator", "ShardedChangeList"]


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
        counted = matching.order_by()[: self.limit + 1]
        number = counted.count()
        self.missing = getattr(counted, "missing_shards", frozenset())
        return number


class ShardedChangeList(ChangeList):
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
        super().get_results(request)
        rows: Any = self.result_list
        len(rows)  # asks the shards now: templates would ask too late for a warning
        self.missing = rows.missing_shards | getattr(self.paginator, "missing", frozenset())
