"""A function without hints."""

from django.db import migrations

from tests.sharding.notes import ran


def anywhere(apps, schema_editor):
    ran.append(("anywhere", schema_editor.connection.alias))


class Migration(migrations.Migration):
    dependencies = [("notes", "0001_initial")]
    operations = [migrations.RunPython(anywhere)]
