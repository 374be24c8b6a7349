"""Migrations over many databases: where an operation belongs that names no model object."""

from collections.abc import Iterator

from django.apps import apps
from django.contrib.contenttypes.management import RenameContentType
from django.db.migrations import Migration
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.operations import (
    AlterModelManagers,
    CreateModel,
    RenameModel,
    SeparateDatabaseAndState,
)
from django.db.migrations.operations.base import Operation

from sharding import conf
from sharding.errors import ShardingError
from sharding.placement import place, place_by_managers

__all__ = ["place_by_name", "place_content_type_renames"]


def place_by_name(app_label: str, model_name: str | None) -> str:
    """Return the alias of an app's model, or SHARDS, by its name today or in any migration.

    RunPython and RunSQL give the name in their hints, or none. Raises ShardingError where that
    does not tell.
    """
    if model_name and model_name.lower() in (today := _models_of_today(app_label)):
        return today[model_name.lower()]
    ever = {**_models_in_migrations(app_label), **_models_of_today(app_label)}
    if model_name and model_name.lower() in ever:
        return ever[model_name.lower()]
    places = set(ever.values())
    if alias := conf.app_databases().get(app_label):
        return alias
    if len(places) > 1:
        named = f"model_name={model_name!r} names no model of it" if model_name else "none is given"
        raise ShardingError(
            f"RunPython and RunSQL in the app {app_label!r}, whose models live in several places, "
            f"must say which model they are about, and {named}. Write "
            f'hints={{"model_name": "…"}} in the operation, with one of: {", ".join(sorted(ever))}.'
        )
    return places.pop() if places else conf.primary()


def place_content_type_renames(migration: Migration) -> None:
    """Give the hint that it lacks to the RunPython that Django puts beside each RenameModel.

    It changes a row of django_content_type, wherever the renamed model lives.
    """
    for operation in migration.operations:
        if isinstance(operation, RenameContentType):
            operation.hints = {"model": apps.get_model("contenttypes", "ContentType")}


def _models_of_today(app_label: str) -> dict[str, str]:
    if app_label not in apps.app_configs:
        return {}
    models = apps.get_app_config(app_label).get_models(include_auto_created=True)
    return {model._meta.model_name: place(model) for model in models if model._meta.model_name}


def _models_in_migrations(app_label: str) -> dict[str, str]:
    """Every name a model of this app ever had, also since renamed or deleted -> its place."""
    places: dict[str, str] = {}
    for operation in _operations(app_label):
        if isinstance(operation, CreateModel | AlterModelManagers):
            managers = [manager for _, manager in operation.managers or ()]
            where = place_by_managers(app_label, managers)
            if isinstance(operation, CreateModel) or where != conf.primary():
                places[operation.name_lower] = where
        elif isinstance(operation, RenameModel) and operation.old_name_lower in places:
            places[operation.new_name_lower] = places[operation.old_name_lower]
    return places


def _operations(app_label: str) -> Iterator[Operation]:
    loader = MigrationLoader(None, ignore_no_migrations=True)
    for (label, _), migration in sorted(loader.disk_migrations.items()):
        if label == app_label:
            for operation in migration.operations:
                yield operation
                if isinstance(operation, SeparateDatabaseAndState):
                    yield from operation.state_operations
