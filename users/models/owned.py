"""What a user owns, on the user's shard: one profile, many activities."""

import uuid
from decimal import Decimal

from django.core.validators import RegexValidator
from django.db import models
from django.utils import timezone

from sharding.change_log import change_triggers
from sharding.models import ShardedModel

__all__ = ["Activity", "Profile"]


class Profile(ShardedModel):
    """One row per account, wide; `user_id` is the account's id and the key of the shard."""

    class Plan(models.TextChoices):
        FREE = "free"
        PRO = "pro"
        TEAM = "team"

    user_id = models.UUIDField(primary_key=True)
    display_name = models.CharField(max_length=150, blank=True)
    country = models.CharField(
        max_length=2,
        blank=True,
        validators=[RegexValidator(r"\A[A-Z]{2}\Z", "Two letters of ISO 3166, e.g. CH.")],
    )
    plan = models.CharField(max_length=8, choices=Plan, default=Plan.FREE)
    bio = models.TextField(blank=True)
    settings = models.JSONField(default=dict, blank=True)
    created_at = models.DateTimeField(default=timezone.now)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        triggers = change_triggers(
            "users_profilechange",
            key="user_id",
            columns=["country", "plan", "created_at", "updated_at"],
            sharded=True,
        )
        indexes = [
            models.Index(fields=["created_at"]),
            models.Index(fields=["country", "plan"]),
        ]

    def __str__(self) -> str:
        return self.display_name or str(self.user_id)


class Activity(ShardedModel):
    """Something a user did; belongs to a profile and lives beside it."""

    shard_key = "profile"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    profile = models.ForeignKey(
        Profile,
        on_delete=models.CASCADE,
        related_name="activities",
        db_column="user_id",
        db_index=False,  # two indexes begin with it
    )
    kind = models.CharField(max_length=40)
    amount = models.DecimalField(max_digits=12, decimal_places=2, default=Decimal(0))
    payload = models.JSONField(default=dict, blank=True)
    occurred_at = models.DateTimeField(default=timezone.now)

    class Meta:
        verbose_name_plural = "activities"
        indexes = [
            models.Index(fields=["profile", "occurred_at"]),
            models.Index(fields=["occurred_at"]),  # for lists of all users' activities
        ]
        constraints = [
            # Moving a slot identifies rows by this: the key must be part of it.
            models.UniqueConstraint(fields=["profile", "id"], name="users_activity_user_id_id")
        ]

    def __str__(self) -> str:
        return f"{self.kind} at {self.occurred_at:%Y-%m-%d %H:%M}"
