"""Profile and Activity on the primary, with the names that people read."""

import uuid
from decimal import Decimal
from typing import Any

from django.db import models
from django.utils import timezone

from users.models import Profile

__all__ = ["PlainActivity", "PlainProfile"]


class PlainProfile(models.Model):
    user_id = models.UUIDField(primary_key=True)
    display_name = models.CharField(max_length=150, blank=True)
    country = models.CharField(
        max_length=2, blank=True, validators=Profile._meta.get_field("country").validators[:1]
    )
    plan = models.CharField(max_length=8, choices=Profile.Plan, default=Profile.Plan.FREE)
    bio = models.TextField(blank=True)
    settings = models.JSONField(default=dict, blank=True)
    created_at = models.DateTimeField(default=timezone.now)
    updated_at = models.DateTimeField(auto_now=True)

    objects: models.Manager[Any] = models.Manager()

    class Meta:
        app_label = "plain"
        verbose_name = "profile"

    def __str__(self) -> str:
        return self.display_name or str(self.user_id)


class PlainActivity(models.Model):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    profile = models.ForeignKey(
        PlainProfile, on_delete=models.CASCADE, related_name="activities", db_column="user_id"
    )
    kind = models.CharField(max_length=40)
    amount = models.DecimalField(max_digits=12, decimal_places=2, default=Decimal(0))
    payload = models.JSONField(default=dict, blank=True)
    occurred_at = models.DateTimeField(default=timezone.now)

    objects: models.Manager[Any] = models.Manager()

    class Meta:
        app_label = "plain"
        verbose_name = "activity"
        verbose_name_plural = "activities"

    def __str__(self) -> str:
        return f"{self.kind} at {self.occurred_at:%Y-%m-%d %H:%M}"
