"""The models as they were at first: two on the primary, two on the shards."""

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
        migrations.CreateModel("Topic", [("id", models.BigAutoField(primary_key=True))]),
        migrations.CreateModel(
            "Note",
            [
                ("user_id", models.UUIDField(primary_key=True)),
                ("text", models.CharField(max_length=20)),
            ],
            options={"base_manager_name": "objects"},
            managers=[("objects", ShardedManager())],
        ),
        migrations.CreateModel(
            "Draft",
            [("user_id", models.UUIDField(primary_key=True))],
            options={"base_manager_name": "objects"},
            managers=[("objects", ShardedManager())],
        ),
    ]
