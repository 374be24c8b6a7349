"""What is left today."""

from django.db import models

from sharding.models import ShardedModel

__all__ = ["Author", "Memo"]


class Author(models.Model):
    """On the primary."""

    name = models.CharField(max_length=20)

    class Meta:
        app_label = "notes"

    def __str__(self) -> str:
        return self.name


class Memo(ShardedModel):
    """On the shards; once called Note."""

    user_id = models.UUIDField(primary_key=True)
    text = models.CharField(max_length=20)

    class Meta:
        app_label = "notes"

    def __str__(self) -> str:
        return self.text
