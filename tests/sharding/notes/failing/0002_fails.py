"""Fails on shard_2 until `notes.ran` says that the cause is gone."""

from django.db import migrations

from tests.sharding.notes import ran


def fail(apps, schema_editor):
    if schema_editor.connection.alias == "shard_2" and ("repair", "shard_2") not in ran:
        raise KeyError("surprise")


class Migration(migrations.Migration):
    dependencies = [("notes", "0001_initial")]
    operations = [migrations.RunPython(fail, hints={"model_name": "Memo"})]
