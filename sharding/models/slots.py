"""What the primary knows of the slots: who owns them, in which version of the map, which shards."""

import uuid

from django.db import models

__all__ = ["Cluster", "Shard", "Slot"]


class Slot(models.Model):
    """One slot, 0 to 999, and the alias of the shard that owns it."""

    slot = models.PositiveSmallIntegerField(primary_key=True)
    shard = models.CharField(max_length=63)
    version = models.PositiveBigIntegerField(
        default=1, help_text="The map's version in which this slot got its owner."
    )

    def __str__(self) -> str:
        return f"{self.slot}: {self.shard}"


class Cluster(models.Model):
    """One row: who this installation is, and the version of its map, which every change raises."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    map_version = models.PositiveBigIntegerField(default=1)

    def __str__(self) -> str:
        return str(self.id)


class Shard(models.Model):
    """A shard that was set up once. An empty server behind its alias is not a new shard."""

    alias = models.CharField(primary_key=True, max_length=63)
    since = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return self.alias
