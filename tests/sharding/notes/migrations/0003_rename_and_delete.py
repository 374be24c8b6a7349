"""Note becomes Memo; Draft becomes Sketch and goes; Topic goes."""

from django.db import migrations

from tests.sharding.notes import ran


def sketch(apps, schema_editor):
    ran.append(("sketch", schema_editor.connection.alias))


class Migration(migrations.Migration):
    dependencies = [("notes", "0002_named")]
    operations = [
        migrations.RenameModel("Note", "Memo"),
        migrations.RenameModel("Draft", "Sketch"),
        migrations.RunPython(sketch, sketch, hints={"model_name": "Sketch"}),
        migrations.DeleteModel("Sketch"),
        migrations.DeleteModel("Topic"),
    ]
