"""How far the copies are, on both sides: see analytics.sync.turn for what the tokens mean."""

from django.contrib.postgres.fields import ArrayField
from django.db import models

from sharding.models import LocalManager

__all__ = ["SyncArrival", "SyncCheckpoint", "SyncPosition"]


class SyncPosition(models.Model):
    """Beside the source's rows: the token of the last batch read there, and of the last applied."""

    source = models.CharField(primary_key=True, max_length=63)
    claimed = models.UUIDField(null=True)
    applied = models.UUIDField(null=True)

    objects = LocalManager(primary=True)

    class Meta:
        base_manager_name = "objects"

    def __str__(self) -> str:
        return self.source


class SyncArrival(models.Model):
    """Beside the rows of a shard that took slots over: which, and whose they were.

    See analytics.sync.arrivals.
    """

    shard = models.CharField(primary_key=True, max_length=63)
    slots = ArrayField(models.PositiveSmallIntegerField(), default=list)

    objects = LocalManager(primary=False)

    class Meta:
        base_manager_name = "objects"

    def __str__(self) -> str:
        return self.shard


class SyncCheckpoint(models.Model):
    """Beside the copies: the token of the last batch written, and how far a reconcile came."""

    source = models.CharField(primary_key=True, max_length=127)
    token = models.UUIDField(null=True)
    # Not NULL from the beginning of a reconcile to its end: {"page": 0, "filenode": 0}
    reconcile = models.JSONField(null=True)
    # What was copied to what by then. Rows that are there since before a column are not in the log.
    columns = models.TextField(db_default="")
    # Names of those that a first load builds at its end: see analytics.sync.indexes.
    dropped_indexes = models.JSONField(null=True)

    def __str__(self) -> str:
        return self.source
