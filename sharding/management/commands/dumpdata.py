"""`dumpdata` that says what it leaves out: a file that only looks complete is no backup."""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from django.apps import apps
from django.core.management import CommandError
from django.core.management.commands import dumpdata
from django.core.management.utils import parse_apps_and_model_labels
from django.db import models, router

from sharding.placement import aliases_at, place


class Command(dumpdata.Command):
    """Django's, for one database of many."""

    def handle(self, *app_labels: str, **options: Any) -> None:
        labels = {label.lower() for label in app_labels}
        elsewhere = [
            model
            for model in _asked(labels, options["exclude"])
            if not router.allow_migrate_model(options["database"], model)
        ]
        if named := [model for model in elsewhere if model._meta.label_lower in labels]:
            raise CommandError(
                f"There are no rows on {options['database']} of {_places(named)}. Say --database, "
                f"for each of these in turn."
            )
        super().handle(*app_labels, **options)
        if elsewhere:
            self.stderr.write(
                f"Left out, as not on {options['database']}: {_places(elsewhere)}. Dump those with "
                f"--database."
            )


def _asked(labels: set[str], excluded: list[str]) -> Iterator[type[models.Model]]:
    without_models, without_apps = parse_apps_and_model_labels(excluded)
    for model in apps.get_models():
        meta = model._meta
        left_out = model in without_models or apps.get_app_config(meta.app_label) in without_apps
        if meta.proxy or not meta.managed or left_out:
            continue
        if not labels or labels & {meta.app_label, meta.label_lower}:
            yield model


def _places(found: list[type[models.Model]]) -> str:
    where: dict[str, list[str]] = defaultdict(list)
    for model in found:
        where[", ".join(aliases_at(place(model)))].append(model._meta.label)
    return "; ".join(f"{', '.join(labels)} (on {aliases})" for aliases, labels in where.items())
