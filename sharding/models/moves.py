"""The records of moves, on the primary."""

from django.contrib.postgres.fields import ArrayField
from django.db import models

__all__ = ["Move"]


class Move(models.Model):
    """Slots on their way from one shard to another, and how far they are.

    `sharding.moves` says what happens in each state.
    """

    class State(models.TextChoices):
        PLANNED = "planned"
        COPYING = "copying"
        CATCHING_UP = "catching up"
        VERIFIED = "verified"
        FENCED = "fenced"
        MOVED = "moved"
        SWITCHED = "switched"
        OWNED = "owned"
        CLEANED = "cleaned"
        ABORTING = "aborting"
        ABORTED = "aborted"

    source = models.CharField(max_length=63)
    target = models.CharField(max_length=63)
    slots = ArrayField(models.PositiveSmallIntegerField())
    state = models.CharField(max_length=11, choices=State, default=State.PLANNED)
    # In the names of its publication, subscription and replication slot, which are server-wide.
    token = models.CharField(max_length=12)
    problem = models.TextField(blank=True, help_text="Why it stopped last.")
    started_at = models.DateTimeField(auto_now_add=True)
    changed_at = models.DateTimeField(auto_now=True)
    rows = models.PositiveBigIntegerField(default=0, help_text="Rows that it copied.")

    # By this process' monotonic clock, when it published that the slots are about to change hands.
    handing_over_since: float | None = None

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"move {self.pk}: {len(self.slots)} slots from {self.source} to {self.target}"
