"""Tables that several databases have, each its own: what they hold is about that database."""

from django.db import models

__all__ = ["LocalManager"]


class LocalManager(models.Manager):
    """Puts a model's table on every shard, or on the primary and every shard.

    Its rows have no key: a query must name its database with `.using()`.
    """

    use_in_migrations = True

    def __init__(self, *, primary: bool) -> None:
        super().__init__()
        self.primary = primary
