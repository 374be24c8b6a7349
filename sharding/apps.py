"""The app's place in Django: checks, and the slot map's first filling."""

from django.apps import AppConfig
from django.db.models.signals import post_migrate


class ShardingConfig(AppConfig):
    name = "sharding"
    verbose_name = "Databases"

    def ready(self) -> None:
        from sharding import checks, server_checks, slot_cache  # noqa: F401  checks register themselves

        post_migrate.connect(slot_cache.fill, sender=self)
