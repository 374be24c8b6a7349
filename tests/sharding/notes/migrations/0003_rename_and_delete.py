"""Note becomes Memo; Draft and Topic go."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("notes", "0002_named")]
    operations = [
        migrations.RenameModel("Note", "Memo"),
        migrations.DeleteModel("Draft"),
        migrations.DeleteModel("Topic"),
    ]
