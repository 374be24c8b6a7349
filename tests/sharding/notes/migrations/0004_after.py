"""A function and a change of columns after the renaming."""

from django.db import migrations, models

from tests.sharding.notes import ran


def memo(apps, schema_editor):
    ran.append(("memo", schema_editor.connection.alias))


class Migration(migrations.Migration):
    dependencies = [("notes", "0003_rename_and_delete")]
    operations = [
        migrations.RunPython(memo, memo, hints={"model_name": "Memo"}),
        migrations.AddIndex("Memo", models.Index(fields=["text"], name="notes_memo_text")),
    ]
