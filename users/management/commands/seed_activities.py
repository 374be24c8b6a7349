"""`seed_activities`: something to see for profiles that have no activities."""

import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError
from tqdm import tqdm

from users.seeding import count_unseeded, seed_activities


class Command(BaseCommand):
    help = (
        "Invents activities for all profiles that have none; those of the others stay as they "
        "are. The same seed invents the same again."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--per-user", type=_not_negative, default=4.0, help="on average (default: 4)"
        )
        parser.add_argument("--seed", type=int, default=1, help="any number (default: 1)")
        parser.add_argument("--no-progress", action="store_true", help="show no progress bar")

    def handle(self, *, per_user: float, seed: int, no_progress: bool, **options: Any) -> None:
        shown = sys.stderr.isatty() and not no_progress
        try:
            total = count_unseeded()
            with tqdm(total=total, unit=" profiles", disable=not shown, leave=False) as bar:
                seeded = seed_activities(per_user=per_user, seed=seed, advance=bar.update)
        except DatabaseError as error:
            raise CommandError(f"{error} Then run the same command again for the rest.") from error
        self.stdout.write(
            f"{seeded.activities:,} activities for {seeded.profiles:,} profiles that had none."
        )


def _not_negative(text: str) -> float:
    number = float(text)
    if not 0 <= number < float("inf"):
        raise ValueError
    return number
