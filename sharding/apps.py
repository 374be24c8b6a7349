"""The app's place in Django: checks, and what every database is given after `migrate`."""

from django.apps import AppConfig
from django.db.models.signals import post_migrate


class ShardingConfig(AppConfig):
    name = "sharding"
    verbose_name = "Databases"

    def ready(self) -> None:
        from sharding import (  # noqa: F401  checks register themselves
            bootstrap,
            change_log,
            checks,
            server_checks,
            shard_checks,
        )

        post_migrate.connect(bootstrap.after_migrate, sender=self)
        post_migrate.connect(change_log.tune_logs, sender=self)
