"""`sync_analytics`: copies accounts from the primary to analytics."""

from functools import partial
from time import monotonic
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from analytics.sync import SyncAlreadyRunning, SyncFailed, recorded, sync_all, sync_one
from sharding.errors import DatabaseUnavailable, InvalidShardKey


class Command(BaseCommand):
    """A shell around `analytics.sync`."""

    help = "Copies accounts from the primary to analytics: all of them, or one."

    def add_arguments(self, parser: CommandParser) -> None:
        which = parser.add_mutually_exclusive_group()
        which.add_argument("--user", metavar="UUID", help="Copy this account only.")
        which.add_argument(
            "--full", action="store_true", help="Compare every account; the default for now."
        )
        parser.add_argument(
            "--no-progress", action="store_false", dest="progress", help="Show no progress bar."
        )

    def handle(self, *, user: str | None, progress: bool, **options: Any) -> None:
        start = monotonic()
        try:
            if user is None:
                result = recorded("full", partial(sync_all, progress=progress))
            else:
                result = recorded("user", partial(sync_one, user))
        except SyncAlreadyRunning as error:
            self.stdout.write(str(error))
            return
        except (InvalidShardKey, SyncFailed, DatabaseUnavailable) as error:
            raise CommandError(str(error)) from error
        self.stdout.write(
            f"{result.upserted} upserted, {result.deleted} deleted, {result.unchanged} unchanged "
            f"in {monotonic() - start:.1f} seconds."
        )
