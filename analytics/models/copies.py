"""Copies of the primary's rows, for reports. Written by the sync alone."""

from django.db import models
from django.db.models.functions import Now

__all__ = ["ProfileAnalytics", "UserAnalytics"]


class UserAnalytics(models.Model):
    """A copy of an account, without its password.

    Nothing but the key is unique: two users who swap their emails are copied one after the other.
    """

    user_id = models.UUIDField(primary_key=True)
    email = models.EmailField()
    name = models.CharField(max_length=150, blank=True)
    is_active = models.BooleanField()
    is_staff = models.BooleanField()
    date_joined = models.DateTimeField()
    last_login = models.DateTimeField(null=True, blank=True)
    synced_at = models.DateTimeField(db_default=Now())

    class Meta:
        indexes = [
            models.Index(fields=["date_joined"]),
            models.Index(fields=["last_login"]),
        ]
        verbose_name = "user in analytics"
        verbose_name_plural = "users in analytics"

    def __str__(self) -> str:
        return self.email


class ProfileAnalytics(models.Model):
    """A copy of what reports need of a profile, and the alias of the shard it came from."""

    user_id = models.UUIDField(primary_key=True)
    shard = models.CharField(max_length=63)
    country = models.CharField(max_length=2, blank=True)
    plan = models.CharField(max_length=8)
    created_at = models.DateTimeField()
    updated_at = models.DateTimeField()
    synced_at = models.DateTimeField(db_default=Now())

    class Meta:
        indexes = [models.Index(fields=["country", "plan"])]
        verbose_name = "profile in analytics"
        verbose_name_plural = "profiles in analytics"

    def __str__(self) -> str:
        return str(self.user_id)
