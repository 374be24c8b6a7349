"""The first migration of `unnamed` and `failing`: today's models."""

from django.db import migrations, models

from sharding.models import ShardedManager


class Migration(migrations.Migration):
    initial = True
    dependencies = []
    operations = [
        migrations.CreateModel(
            "Author",
            [
                ("id", models.BigAutoField(primary_key=True)),
                ("name", models.CharField(max_length=20)),
            ],
        ),
        migrations.CreateModel(
            "Memo",
            [
                ("user_id", models.UUIDField(primary_key=True)),
                ("text", models.CharField(max_length=20)),
            ],
            options={"base_manager_name": "objects"},
            managers=[("objects", ShardedManager())],
        ),
    ]
