"""System checks sharding.E001 to E010, and E015: what would route or compare rows wrongly."""

import uuid
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from django.apps import AppConfig, apps
from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, register
from django.db import connections, models
from django.utils.module_loading import import_string

from sharding import bootstrap, conf, slot_cache
from sharding.backend.base import DatabaseWrapper
from sharding.errors import InvalidSlotMap
from sharding.models.sharded import ShardedModel
from sharding.orm.queryset import ShardedManager
from sharding.placement import SHARDS, place
from sharding.router import DatabaseRouter

__all__ = ["check_models", "check_settings", "check_stored_slot_map"]


@register()
def check_settings(**kwargs: Any) -> list[CheckMessage]:
    """E001: SHARD_SLOTS is no whole map. E009: the router is missing. E010: a wrong backend.
    E015: moments that do not sort."""
    return [*_first_slot_map(), *_router(), *_backends(), *_time_zones()]


@register(Tags.database)
def check_stored_slot_map(
    databases: Sequence[str] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """E002: the map on the primary has gaps, or names a shard that is not declared."""
    if conf.primary() not in (databases or ()) or not bootstrap.is_filled():
        return []
    try:
        slot_cache.read()
    except InvalidSlotMap as error:
        return [
            Error(
                str(error),
                hint="Correct the table sharding_slot on the primary: it says where rows are.",
                id="sharding.E002",
            )
        ]
    return []


@register(Tags.models)
def check_models(
    app_configs: Iterable[AppConfig] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """E003 to E008, for each model that lives on shards or points there."""
    chosen = app_configs if app_configs is not None else apps.get_app_configs()
    found: list[CheckMessage] = []
    for model in (model for app in chosen for model in app.get_models()):
        found += _relations(model)
        if issubclass(model, ShardedModel):
            for check in (_key, _unique, _primary_key, _inheritance, _managers):
                found += check(model)
        elif any(isinstance(manager, ShardedManager) for manager in model._meta.managers):
            found += _not_sharded(model)
    return found


def _first_slot_map() -> Iterator[CheckMessage]:
    try:
        conf.first_slot_map()
    except InvalidSlotMap as error:
        yield Error(
            str(error),
            hint="SHARD_SLOTS fills the slot map once; leave it empty to share slots out evenly.",
            id="sharding.E001",
        )


def _router() -> Iterator[CheckMessage]:
    routers = [
        import_string(router) if isinstance(router, str) else router
        for router in settings.DATABASE_ROUTERS
    ]
    classes = [router if isinstance(router, type) else type(router) for router in routers]
    if not any(issubclass(router, DatabaseRouter) for router in classes):
        yield Error(
            "The router is missing, so every query goes to the primary.",
            hint='Set DATABASE_ROUTERS = ["sharding.router.DatabaseRouter"].',
            id="sharding.E009",
        )


def _backends() -> Iterator[CheckMessage]:
    for alias in (conf.primary(), *conf.shards()):
        if not isinstance(connections[alias], DatabaseWrapper):
            yield Error(
                f"DATABASES[{alias!r}] uses a backend that cannot answer for several shards.",
                hint='Set its ENGINE to "sharding.backend", which extends the one of Django.',
                id="sharding.E010",
            )


def _time_zones() -> Iterator[CheckMessage]:
    for alias in conf.shards():
        # Python compares moments of one zone by the clock on the wall, where an hour comes twice.
        if (name := connections[alias].timezone_name) != "UTC":
            yield Error(
                f"{alias} gives moments in the time zone {name}, in which they cannot be merged.",
                hint="Set USE_TZ = True, and leave TIME_ZONE out of DATABASES.",
                id="sharding.E015",
            )


def _key_field(model: type[ShardedModel]) -> "models.Field[Any, Any] | None":
    names = {field.name: field for field in model._meta.concrete_fields}
    return names.get(model.shard_key)


def _key(model: type[ShardedModel]) -> Iterator[CheckMessage]:
    field = _key_field(model)
    problem = None
    if field is None:
        problem = f"has no field {model.shard_key!r}, which shall hold its shard key"
    elif field.null:
        problem = f"allows its shard key {field.name!r} to be NULL"
    elif isinstance(field, models.ForeignKey):
        if not _is_key_of_target(field):
            problem = f"takes its shard key from {field.name!r}, which refers to no sharded key"
    elif not isinstance(field, models.UUIDField):
        problem = f"has a shard key {field.name!r} that is no UUID"
    if problem:
        yield Error(
            f"{model._meta.label} {problem}.",
            hint="The key is a UUIDField without null, or a foreign key to the key of a sharded "
            "model. Set shard_key to its name.",
            obj=model,
            id="sharding.E003",
        )


def _is_key_of_target(field: "models.ForeignKey[Any, Any]") -> bool:
    target = field.remote_field.model
    return (
        isinstance(target, type)
        and issubclass(target, ShardedModel)
        and field.target_field == _key_field(target)
    )


def _relations(model: type[models.Model]) -> Iterator[CheckMessage]:
    for field in (*model._meta.local_fields, *model._meta.local_many_to_many):
        target = field.remote_field.model if field.remote_field else None
        if target is None or isinstance(target, str):  # a name that Django reports as unknown
            continue
        here, there = conf.label(place(model)), conf.label(place(target))
        if here != there:
            problem = f"lives on {here}, its target {target._meta.label} on {there}"
            hint = "No foreign key crosses databases. Keep the plain id in a UUIDField instead."
        elif field.many_to_many or place(model) != SHARDS:
            continue
        elif field.name != getattr(model, "shard_key", None):
            problem = "is not the shard key, so its target may be on another shard"
            hint = "Keep the target's id in a UUIDField; both rows have the shard key in common."
        else:
            continue
        yield Error(
            f"{model._meta.label}.{field.name}: this relation {problem}.",
            hint=hint,
            obj=field,
            id="sharding.E004",
        )


def _unique(model: type[ShardedModel]) -> Iterator[CheckMessage]:
    for names in _unique_sets(model):
        if not _key_names(model) & names:
            yield Error(
                f"{model._meta.label}: unique {', '.join(sorted(names))} holds on each shard by "
                f"itself only.",
                hint=f"Include {model.shard_key!r} in it, or keep what must be unique everywhere "
                f"in a model on the primary.",
                obj=model,
                id="sharding.E005",
            )


def _key_names(model: type[ShardedModel]) -> set[str]:
    """The names by which fields refer to the key: with a foreign key two, profile, profile_id."""
    return {model.shard_key, getattr(_key_field(model), "attname", model.shard_key)}


def _unique_sets(model: type[ShardedModel]) -> Iterator[set[str]]:
    """The names of each set of fields that shall be unique, the primary key's aside."""
    field: Any
    for field in model._meta.local_fields:
        if field.unique and not field.primary_key:
            yield {field.name}
        if field.unique_for_date or field.unique_for_month or field.unique_for_year:
            yield {field.name}
    yield from (set(names) for names in model._meta.unique_together)
    for constraint in model._meta.constraints:
        if isinstance(constraint, models.UniqueConstraint):
            yield {*constraint.fields, *map(_referred, constraint.expressions)}


def _referred(expression: Any) -> str:
    """The field in an expression of a constraint, where there is just one, as in Lower("email")."""
    parts = [expression] if isinstance(expression, models.F) else expression.flatten()
    names = {part.name for part in parts if isinstance(part, models.F)}
    return names.pop() if len(names) == 1 else str(expression)


def _primary_key(model: type[ShardedModel]) -> Iterator[CheckMessage]:
    pk = model._meta.pk
    parts = set(getattr(pk, "field_names", ())) or {pk.name}
    random = isinstance(pk, models.UUIDField) and pk.default is uuid.uuid4
    if not _key_names(model) & parts and not random:
        yield Error(
            f"{model._meta.label}: two shards can give the same primary key {pk.name!r} to "
            f"different rows.",
            hint="Use models.UUIDField(primary_key=True, default=uuid.uuid4), or make the shard "
            "key the primary key or a part of it.",
            obj=model,
            id="sharding.E006",
        )


def _inheritance(model: type[ShardedModel]) -> Iterator[CheckMessage]:
    if model._meta.parents and not model._meta.proxy:
        yield Error(
            f"{model._meta.label} inherits from a model with a table of its own.",
            hint="Make the parent abstract.",
            obj=model,
            id="sharding.E007",
        )
    for field in model._meta.local_many_to_many:
        yield Error(
            f"{model._meta.label}.{field.name}: the rows between two sharded models have no key.",
            hint="Declare the model in between as a ShardedModel with its own shard_key.",
            obj=field,
            id="sharding.E007",
        )


def _managers(model: type[ShardedModel]) -> Iterator[CheckMessage]:
    for manager in {*model._meta.managers, model._base_manager}:
        if not isinstance(manager, ShardedManager):
            yield Error(
                f"{model._meta.label}.{manager.name or '_base_manager'} is no ShardedManager: its "
                f"queries would pass by the routing.",
                hint="Derive the manager from sharding.models.ShardedManager.",
                obj=model,
                id="sharding.E008",
            )
    if model._base_manager.get_queryset().query.where:
        yield Error(
            f"{model._meta.label}.{model._base_manager.name} leaves rows out, and save(), "
            f"refresh_from_db() and cascades go through it.",
            hint="Name another ShardedManager in Meta.base_manager_name, one that has all rows.",
            obj=model,
            id="sharding.E008",
        )


def _not_sharded(model: type[models.Model]) -> Iterator[CheckMessage]:
    yield Error(
        f"{model._meta.label} has a ShardedManager but is no ShardedModel: its rows have no key.",
        hint="Derive the model from sharding.models.ShardedModel, or take another manager.",
        obj=model,
        id="sharding.E008",
    )
