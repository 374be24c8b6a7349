"""`load_sample`: the first start of a clone has users to show, and somebody who may see them."""

import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError

from users.importing import ImportFailed
from users.sample.loading import ADMIN, load_sample


class Command(BaseCommand):
    help = (
        "Loads sample users with activities and creates an administrator, whose password it prints "
        "once. Where there is an administrator already it does nothing."
    )

    def handle(self, **options: Any) -> None:
        try:
            loaded = load_sample(show_progress=sys.stderr.isatty())
        except (ImportFailed, DatabaseError, ValueError) as error:
            raise CommandError(f"{error} Run load_sample again for the rest.") from error
        if not loaded:
            self.stdout.write("There is an administrator already: no sample is loaded.")
            return
        self.stdout.write(f"Sample users: {loaded.users}.")
        self.stdout.write(f"Sample activities: {loaded.activities.activities:,}.")
        self.stdout.write(
            self.style.SUCCESS(
                f"\nAdministrator, shown only now:\n  email     {ADMIN}\n"
                f"  password  {loaded.password}\n"
            )
        )
