"""What each shard knows of itself: who it is, and which slots it owns."""

from django.db import models

from sharding.models.local import LocalManager

__all__ = ["Identity", "SlotOwner"]


class Identity(models.Model):
    """One row: the shard's alias, and the installation that it belongs to."""

    alias = models.CharField(primary_key=True, max_length=63)
    cluster = models.UUIDField()

    objects = LocalManager(primary=False)

    class Meta:
        base_manager_name = "objects"
        verbose_name_plural = "identities"

    def __str__(self) -> str:
        return self.alias


class SlotOwner(models.Model):
    """A slot whose rows this shard has, or may have; one without a row is another shard's.

    The guard is generated from this table: change both through sharding.ownership.
    """

    class State(models.TextChoices):
        OWNED = "owned"
        FENCED = "fenced", "fenced until a time: no writes, as it is about to leave"
        MOVED = "moved", "given up: its rows are only waiting to be deleted"
        IMPORTING = "importing", "its rows are being copied to this shard"
        ARRIVED = "arrived", "its rows are all here, to be read; the writers still wait"

    slot = models.PositiveSmallIntegerField(primary_key=True)
    state = models.CharField(max_length=9, choices=State, default=State.OWNED)
    move = models.BigIntegerField(null=True, help_text="The move that it takes part in.")
    fenced_until = models.DateTimeField(null=True)

    objects = LocalManager(primary=False)

    class Meta:
        base_manager_name = "objects"

    def __str__(self) -> str:
        return f"{self.slot}: {self.state}"
