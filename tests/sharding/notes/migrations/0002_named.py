"""Functions and SQL that say which model they are about, while all models are there."""

from django.db import migrations

from tests.sharding.notes import ran


def note(apps, schema_editor):
    alias = schema_editor.connection.alias
    ran.append(("note", alias))
    apps.get_model("notes", "Note").objects.using(alias).update(text="changed")


def topic(apps, schema_editor):
    ran.append(("topic", schema_editor.connection.alias))


class Migration(migrations.Migration):
    dependencies = [("notes", "0001_initial")]
    operations = [
        migrations.RunPython(note, topic, hints={"model_name": "Note"}),
        migrations.RunPython(topic, topic, hints={"model_name": "topic"}),
        migrations.RunSQL(
            "INSERT INTO notes_author (name) VALUES ('SQL')",
            migrations.RunSQL.noop,
            hints={"model_name": "Author"},
        ),
    ]
