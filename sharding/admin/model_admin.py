"""ShardedModelAdmin: where each page of the admin finds its shard."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from django.contrib import admin
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.utils import unquote
from django.core import checks
from django.core.exceptions import BadRequest, ValidationError
from django.db.models import ForeignKey
from django.http import HttpRequest

from sharding import get_shard_for_user_id
from sharding.admin.changelist import BoundedModelAdmin, ShardedChangeList, selects_all
from sharding.admin.columns import ShardNumber
from sharding.admin.outage import OutageModelAdmin, warn_of_missing
from sharding.admin.previews import Preview, deleted_rows
from sharding.admin.transactions import logged, reachable_shard
from sharding.admin.widgets import ShardedAutocompleteSelect
from sharding.context import current_shard, use_shard
from sharding.errors import DatabaseUnavailable, InvalidShardKey
from sharding.models import ShardedModel
from sharding.orm.targets import aliases_for

__all__ = ["ShardedModelAdmin"]


class ShardedModelAdmin(BoundedModelAdmin, OutageModelAdmin):
    """A ModelAdmin for a sharded model. Its key is chosen when a row is added, and stays.

    A list costs one question to all shards for its page, one for its count, two for a date
    hierarchy. Filters should have fixed choices: looking for them is one question more.
    """

    show_facets = admin.ShowFacets.NEVER  # counts every choice of every filter

    # Lists

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).across_shards()  # type: ignore[attr-defined]

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ShardedChangeList]:
        return ShardedChangeList

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> Any:
        response = super().changelist_view(request, extra_context)
        cl = (getattr(response, "context_data", None) or {}).get("cl")
        if request.method == "GET" and cl:
            warn_of_missing(request, cl.missing)
        return response

    @admin.display(description="shard", ordering=ShardNumber())
    def shard(self, obj: ShardedModel) -> str:
        """A column for lists: the alias of the row's shard."""
        return get_shard_for_user_id(obj.shard_key_value)

    # One row

    def get_object(
        self, request: HttpRequest, object_id: str, from_field: str | None = None
    ) -> Any:
        """Return the row or None. Raises DatabaseUnavailable where a shard that is down may have
        it."""
        field: Any = self.opts.get_field(from_field) if from_field else self.opts.pk
        try:
            lookup = {field.name: field.to_python(object_id)}
        except (ValidationError, ValueError):
            return None
        queryset = self.get_queryset(request)
        if alias := current_shard():
            return queryset.using(alias).filter(**lookup).first()
        return _on_its_own_shard(queryset.across_shards(partial=True).filter(**lookup))

    @contextmanager
    def placed(self, request: HttpRequest, object_id: str | None) -> Iterator[str]:
        adds = object_id is None or "_saveasnew" in request.POST
        alias = self._shard_of_new(request) if adds else self._shard_of(request, object_id)
        # Where there is none, the form will be refused or the row not found.
        alias = alias or reachable_shard()
        with use_shard(alias):
            yield alias

    @contextmanager
    def writing(self, request: HttpRequest, object_id: str | None) -> Iterator[None]:
        with self.placed(request, object_id) as alias, logged([alias]):
            yield

    def _shard_of_new(self, request: HttpRequest) -> str | None:
        with suppress(InvalidShardKey):
            return get_shard_for_user_id(request.POST.get(self._key.name, ""))
        return None

    def _shard_of(self, request: HttpRequest, object_id: Any) -> str | None:
        found = self.get_object(request, unquote(object_id))
        return found._state.db if found else None

    @property
    def _key(self) -> Any:
        return self.opts.get_field(self.model.shard_key)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[Any] | tuple:
        fields = super().get_readonly_fields(request, obj)
        return (*fields, self._key.name) if obj and self._key.name not in fields else fields

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        if db_field.name in self.get_autocomplete_fields(request):
            widget = ShardedAutocompleteSelect(db_field, self.admin_site, using=kwargs.get("using"))
            kwargs.setdefault("widget", widget)
        return super().formfield_for_foreignkey(db_field, request, **kwargs)

    def get_field_queryset(self, db: str | None, db_field: Any, request: HttpRequest) -> Any:
        """Let a choice among a sharded model's rows look on every shard."""
        queryset: Any = super().get_field_queryset(db, db_field, request)
        related = db_field.remote_field.model
        if not issubclass(related, ShardedModel):
            return queryset
        if queryset is None:
            queryset = related._default_manager.using(db)
        return queryset.across_shards()

    def get_deleted_objects(self, objs: Iterable[Any], request: HttpRequest) -> Preview:
        return deleted_rows(objs, request, self.admin_site)

    # Many rows

    @contextmanager
    def acting(self, request: HttpRequest, queryset: Any) -> Iterator[Any]:
        """Run an action in one transaction on each shard of its rows: all is done, or nothing."""
        chosen = queryset.across_shards()
        if not selects_all(request):
            chosen = chosen.filter(**{f"{self._key.name}__in": self._selected_keys(request)})
        with logged(aliases_for(chosen)):
            yield chosen

    def _selected_keys(self, request: HttpRequest) -> set[Any]:
        """Return the keys of the rows that were ticked. Raises DatabaseUnavailable, BadRequest."""
        ticked = request.POST.getlist(ACTION_CHECKBOX_NAME)
        try:
            ids = {self.opts.pk.to_python(each) for each in ticked}
        except ValidationError as error:
            raise BadRequest(str(error)) from error
        rows = self.get_queryset(request).across_shards(partial=True).filter(pk__in=ids)
        found = {row.pk: row.shard_key_value for row in rows}
        if rows.missing_shards and found.keys() != ids:
            raise _unavailable(rows.missing_shards)
        return set(found.values())

    # Checks

    def check(self, **kwargs: Any) -> list[checks.CheckMessage]:
        return [*super().check(**kwargs), *_check(self)]


def _on_its_own_shard(rows: Any) -> Any:
    """Return the row, or None. While a slot moves, its rows stand on two shards."""
    for row in rows:
        if row._state.db == get_shard_for_user_id(row.shard_key_value):
            return row
    if rows.missing_shards:
        raise _unavailable(rows.missing_shards)
    return None


def _unavailable(aliases: Iterable[str]) -> DatabaseUnavailable:
    alias = min(aliases)
    return DatabaseUnavailable(
        f"Database {alias} cannot be reached, and may have what was asked for.", alias=alias
    )


def _check(model_admin: ShardedModelAdmin) -> list[checks.CheckMessage]:
    found: list[checks.CheckMessage] = []
    if model_admin.list_editable:
        found.append(
            checks.Error(
                "list_editable writes rows of several shards in one transaction of one database.",
                hint="Use an action, or the rows' own pages.",
                obj=type(model_admin),
                id="sharding.E020",
            )
        )
    looked_up = (*model_admin.autocomplete_fields, *model_admin.raw_id_fields)
    for field in model_admin.opts.get_fields():
        if isinstance(field, ForeignKey) and field.name not in looked_up:
            found.append(
                checks.Error(
                    f"The choices of {field.name} are all rows of all shards.",
                    hint=f'Put "{field.name}" into autocomplete_fields or raw_id_fields.',
                    obj=type(model_admin),
                    id="sharding.E021",
                )
            )
    return found
