"""The slot map's table on the primary."""

from django.db import models

__all__ = ["Slot"]


class Slot(models.Model):
    """One slot, 0 to 999, and the alias of the shard that owns it."""

    slot = models.PositiveSmallIntegerField(primary_key=True)
    shard = models.CharField(max_length=63)
    version = models.PositiveBigIntegerField(
        default=1, help_text="The map's version in which this slot got its owner."
    )

    def __str__(self) -> str:
        return f"{self.slot}: {self.shard}"
