"""Which method of a sharded queryset goes where, and no more."""

from collections.abc import (
    AsyncIterator,
    Collection,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from collections.abc import Set as AbstractSet
from contextlib import closing, suppress
from itertools import islice
from typing import Any, Self, TypeVar, cast

from asgiref.sync import sync_to_async
from django.db import DatabaseError, connections, models, router
from django.db.models.query import EmptyQuerySet, prefetch_related_objects

from sharding import slot_cache
from sharding.errors import AcrossShardsRefused
from sharding.following import follow
from sharding.orm import subqueries, writes
from sharding.orm.keys import key_name, keys_in
from sharding.orm.refusals import check_expressions, refuse
from sharding.orm.rows import FanOut
from sharding.orm.targets import aliases_for

__all__ = ["Dispatch"]

_Model = TypeVar("_Model", bound=models.Model, covariant=True)

_CHUNK = 2000


class Dispatch(models.QuerySet[_Model]):
    """Django's methods, for one shard or over several; ShardedQuerySet adds what is new."""

    # How the caller allowed all shards: "" not at all, "all", or "partial".
    _across = ""

    # Those of the fan-out that answered last.
    _missing: AbstractSet[str] = frozenset()

    _db: str | None  # Django's: what .using() named

    def __init__(
        self,
        model: type[_Model] | None = None,
        query: Any = None,
        using: str | None = None,
        hints: dict[str, models.Model] | None = None,
    ) -> None:
        super().__init__(model, query or subqueries.ShardedQuery(model), using, hints)

    @property
    def missing_shards(self) -> frozenset[str]:
        """The shards that could not be reached when a partial queryset was last evaluated."""
        return frozenset(self._missing)

    @property
    def db(self) -> str:
        """The one database of this query. Raises where there is none, or several."""
        aliases = aliases_for(self)
        if len(aliases) > 1:
            raise AcrossShardsRefused(
                f"This call on {self.model._meta.label} needs one shard, and the query goes to "
                f"{', '.join(aliases)}. Add a filter on {key_name(self.model)}, or .using(alias)."
            )
        self._check_subqueries(aliases)
        return aliases[0]

    # Reading

    def _fetch_all(self) -> None:
        if self._result_cache is None:
            self._result_cache = self._fetched()
        super()._fetch_all()

    def _fetched(self) -> list[Any]:
        where = self._where()
        if isinstance(where, FanOut):
            return list(where.objects(self))
        # Named, or Django would have it looked up once more; in a copy, because another thread may
        # be cloning this queryset.
        there = object.__new__(type(self))
        there.__dict__.update(self.__dict__, _db=where)
        return list(cast("Iterable[Any]", self._iterable_class(there)))

    def iterator(self, chunk_size: int | None = None) -> Iterator[_Model]:
        """Stream the rows; over several shards merged as they come, so that memory stays flat."""
        fan_out = self._fan_out()
        if not fan_out or (chunk_size is None and self._prefetch_related_lookups):
            return super().iterator(chunk_size)  # which says that chunk_size is needed
        if chunk_size is not None and chunk_size <= 0:
            raise ValueError("Chunk size must be strictly positive.")
        return self._streamed(fan_out, chunk_size or _CHUNK)

    def _streamed(self, fan_out: FanOut, chunk_size: int) -> Iterator[_Model]:
        objects = fan_out.stream(self, chunk_size)
        return self._prefetched(objects, chunk_size) if self._prefetch_related_lookups else objects

    def _prefetched(self, objects: Generator[_Model], chunk_size: int) -> Iterator[_Model]:
        with closing(objects):  # a prefetch that fails must not leave cursors open
            while chunk := list(islice(objects, chunk_size)):
                prefetch_related_objects(chunk, *self._prefetch_related_lookups)
                yield from chunk

    async def aiterator(self, chunk_size: int = _CHUNK) -> AsyncIterator[_Model]:
        rows: Any = await sync_to_async(self.iterator)(chunk_size)
        try:
            while chunk := await sync_to_async(lambda: list(islice(rows, chunk_size)))():
                for row in chunk:
                    yield row
        finally:  # an abandoned loop's too: its cursors close between other queries, not in them
            await sync_to_async(rows.close)()

    def count(self) -> int:
        fan_out = self._fan_out() if self._result_cache is None else None
        return fan_out.count() if fan_out else super().count()

    def exists(self) -> bool:
        fan_out = self._fan_out() if self._result_cache is None else None
        return fan_out.exists() if fan_out else super().exists()

    def contains(self, obj: models.Model) -> bool:
        key = key_name(self.model)
        if self._db or self._result_cache is not None or not key or not isinstance(obj, self.model):
            return super().contains(obj)
        keyed = self.filter(**{key: obj.shard_key_value})
        return models.QuerySet.contains(keyed, obj)

    def aggregate(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        self._validate_values_are_expressions((*args, *kwargs.values()), method_name="aggregate")
        aggregates = {**kwargs, **{_default_alias(arg): arg for arg in args}}
        self._check_values(subqueries.of_aggregates(self.query, aggregates))
        if not (fan_out := self._fan_out()):
            return super().aggregate(**aggregates)
        return fan_out.aggregate(aggregates)

    def in_bulk(
        self, id_list: Iterable[Any] | None = None, *, field_name: str = "pk"
    ) -> dict[Any, _Model]:
        if id_list is None or self.query.is_sliced:
            return super().in_bulk(id_list, field_name=field_name)
        if not (wanted := tuple(id_list)):
            return super().in_bulk((), field_name=field_name)  # which looks at the field
        # Filtered first: the ids may say which shards own them.
        found = self.filter(**{f"{field_name}__in": wanted})
        return models.QuerySet.in_bulk(found, field_name=field_name)

    def explain(self, *, format: str | None = None, **options: Any) -> str:
        if fan_out := self._fan_out():
            return fan_out.explain(format=format, **options)
        return super().explain(format=format, **options)

    def only(self, *fields: str) -> Self:
        """Load these fields, and the key: without it nobody could save or refresh the object."""
        if fields == (None,):
            return super().only(*fields)  # which refuses it
        return super().only(*fields, *filter(None, [key_name(self.model)]))

    def defer(self, *fields: Any) -> Self:
        """Leave out these fields, but never the key."""
        rest = [name for name in fields if name not in writes.key_names(self.model)]
        return super().defer(*rest)

    # Writing

    def create(self, **kwargs: Any) -> _Model:
        if self._db:
            return super().create(**kwargs)
        owner = router.db_for_write(self.model, instance=self.model(**kwargs))
        return models.QuerySet.create(self.using(owner), **kwargs)

    def bulk_create(
        self,
        objs: Iterable[_Model],
        batch_size: int | None = None,
        ignore_conflicts: bool = False,
        update_conflicts: bool = False,
        update_fields: Collection[str] | None = None,
        unique_fields: Collection[str] | None = None,
    ) -> list[_Model]:
        """Store the objects, each on its shard. Not atomic over several shards."""
        objects = list(objs)
        writes.refuse_key(self.model, update_fields or (), "bulk_create()")
        options = (batch_size, ignore_conflicts, update_conflicts, update_fields, unique_fields)

        def create(alias: str, group: list[_Model]) -> list[_Model]:
            return models.QuerySet.bulk_create(self.using(alias), group, *options)

        writes.each_group(objects, self._db, create)
        if key_name(self.model):
            writes.remember_keys(self.model, objects)
        return objects

    def bulk_update(
        self, objs: Iterable[_Model], fields: Iterable[str], batch_size: int | None = None
    ) -> int:
        """Update the objects, each on its shard. Not atomic over several shards."""
        objects, names = list(objs), list(fields)
        writes.refuse_key(self.model, names, "bulk_update()")
        if key_name(self.model):
            writes.require_same_keys(self.model, objects)
        if not objects:
            return super().bulk_update(objects, names, batch_size)  # which looks at the names

        def update(alias: str, group: list[_Model]) -> int:
            return models.QuerySet.bulk_update(self.using(alias), group, names, batch_size)

        return sum(writes.each_group(objects, self._db, update))

    def get_or_create(
        self, defaults: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> tuple[_Model, bool]:
        return follow(
            lambda: models.QuerySet.get_or_create(self._pinned_by(kwargs), defaults, **kwargs)
        )

    def update_or_create(
        self,
        defaults: Mapping[str, Any] | None = None,
        create_defaults: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> tuple[_Model, bool]:
        values = (defaults, create_defaults)
        return follow(
            lambda: models.QuerySet.update_or_create(self._pinned_by(kwargs), *values, **kwargs)
        )

    def update(self, **kwargs: Any) -> int:
        """Update the rows, on each shard atomically. Not atomic over several shards."""
        self._refuse_new_key(kwargs)
        self._check_values(subqueries.of_update(self.query, kwargs))
        fan_out = self._fan_out()
        if not fan_out:
            return follow(lambda: models.QuerySet.update(self, **kwargs), pinned=self._db)
        fan_out.prepare_write()
        updated = writes.each_shard(self, lambda there: models.QuerySet.update(there, **kwargs))
        self._result_cache = None
        return sum(updated)

    def delete(self) -> tuple[int, dict[str, int]]:
        """Delete the rows, on each shard atomically. Not atomic over several shards."""
        fan_out = self._fan_out()
        if not fan_out:
            return follow(lambda: models.QuerySet.delete(self), pinned=self._db)
        fan_out.prepare_write()
        deleted = writes.each_shard(self, models.QuerySet.delete)
        self._result_cache = None
        return writes.total(deleted)

    delete.queryset_only = True  # as Django's: no manager shall have it

    # Combining

    def _combinator_query(self, combinator: str, *other_qs: Any, all: bool = False) -> Self:
        for other in other_qs:
            self._require_same_place(other, f"{combinator}() of")
        return super()._combinator_query(combinator, *other_qs, all=all)

    def _merge_sanity_check(self, other: Any) -> None:
        self._require_same_place(other, "Combining")
        super()._merge_sanity_check(other)

    def _require_same_place(self, other: Any, what: str) -> None:
        if isinstance(self, EmptyQuerySet) or isinstance(other, EmptyQuerySet):
            return
        if (self._db, self._across) != (other._db, getattr(other, "_across", None)):
            refuse(
                f"{what} querysets that name different databases",
                "Say across_shards() of both or of neither, or combine their rows in Python.",
            )

    # How the methods above decide

    def _where(self) -> FanOut | str:
        """Return the fan-out over this query's shards, or the only database's alias."""
        if self._db:
            return self._db
        slot_map = slot_cache.current()
        aliases = aliases_for(self, slot_map)
        while _opened(aliases):  # which may have taken longer than a map may be old
            slot_map = slot_cache.current()
            aliases = aliases_for(self, slot_map)
        if len(aliases) > 1:
            fan_out = FanOut(self.query, aliases, slot_map, partial=self._across == "partial")
            self._missing = fan_out.missing
            return fan_out
        self._check_subqueries(aliases)
        return aliases[0]

    def _fan_out(self) -> FanOut | None:
        where = self._where()
        return where if isinstance(where, FanOut) else None

    def _check_subqueries(self, aliases: Sequence[str]) -> None:
        # Not with .using(): who names a database means the rows that are there.
        if not self._db and subqueries.has_subqueries(self.query):
            subqueries.check_subqueries(self.query, aliases)

    def _check_values(self, values: Iterable[Any]) -> None:
        if self._db:
            return
        aliases = aliases_for(self)
        if len(aliases) == 1:
            subqueries.check_values(values, aliases)
        else:
            check_expressions(values, self.query)

    def _pinned_by(self, lookup: Mapping[str, Any]) -> Self:
        """Send get_or_create to the shard of the key in its lookup; defaults alone do not count."""
        found = self.filter(**lookup)
        alias = found.db
        for key in keys_in(found.query) or ():
            alias = writes.owner_instead(alias, key)
        return self.using(alias)

    def _refuse_new_key(self, values: Mapping[str, Any]) -> None:
        """Refuse to change the key. A related manager's add() writes the one that is there."""
        for name in writes.key_names(self.model) & values.keys():
            if self.exclude(**{name: values[name]}).exists():
                writes.refuse_key(self.model, [name], "update()")

    def _clone(self) -> Self:
        clone = super()._clone()
        clone._across = self._across
        clone._hints = dict(self._hints)  # Django's clones share one dict with their parent
        return clone


def _opened(aliases: Iterable[str]) -> bool:
    """Open the connections that are closed, and can be opened; say whether there were any."""
    opened = False
    for alias in aliases:
        if connections[alias].connection is None:
            with suppress(DatabaseError):  # raised by the query itself
                connections[alias].ensure_connection()
                opened = True
    return opened


def _default_alias(aggregate: Any) -> str:
    try:
        return aggregate.default_alias
    except (AttributeError, TypeError) as error:
        raise TypeError("Complex aggregates require an alias") from error
