"""The record of the syncs."""

from django.db import models
from django.utils import timezone

__all__ = ["SyncRun"]


class SyncRun(models.Model):
    """One run of `sync_analytics`: when, how, how many rows, and the error that ended it."""

    mode = models.CharField(max_length=16)
    source = models.CharField(max_length=127, default="users")
    started_at = models.DateTimeField(default=timezone.now)
    finished_at = models.DateTimeField(null=True, blank=True)
    upserted = models.PositiveBigIntegerField(default=0)
    deleted = models.PositiveBigIntegerField(default=0)
    unchanged = models.PositiveBigIntegerField(default=0)
    lag = models.DurationField(null=True, blank=True, help_text="At the end of the run.")
    error = models.TextField(blank=True)

    class Meta:
        ordering = ["-started_at"]
        indexes = [models.Index(fields=["started_at"])]
        get_latest_by = "started_at"

    def __str__(self) -> str:
        return f"{self.mode} at {self.started_at:%Y-%m-%d %H:%M:%S}"
