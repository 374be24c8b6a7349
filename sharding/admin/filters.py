"""List filters that cost no query of their own."""

from typing import Any

from django.contrib import admin
from django.contrib.admin.options import IncorrectLookupParameters
from django.http import HttpRequest

from sharding import conf, slot_cache

__all__ = ["ShardFilter"]


class ShardFilter(admin.SimpleListFilter):
    """Only the rows of one shard, asked of that shard alone."""

    title = "shard"
    parameter_name = "shard"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        owners = slot_cache.current().aliases
        return [(alias, alias) for alias in conf.shards() if alias in owners]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        alias = self.value()
        if alias is None:
            return queryset
        if alias not in conf.shards():
            raise IncorrectLookupParameters(f"{alias!r} is no shard.")
        return queryset.using(alias)
