"""Copies of the primary's rows, for reports. Written by the sync alone."""

from django.db import models
from django.utils import timezone

__all__ = ["UserAnalytics"]


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
    synced_at = models.DateTimeField(default=timezone.now)

    class Meta:
        verbose_name = "user in analytics"
        verbose_name_plural = "users in analytics"

    def __str__(self) -> str:
        return self.email
