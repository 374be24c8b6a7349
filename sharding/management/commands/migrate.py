"""`migrate` over all databases in one command."""

from typing import Any

from django.core.management.base import CommandError, CommandParser, no_translations
from django.core.management.commands import migrate
from django.db import connections
from django.db.utils import DatabaseError

from sharding.errors import ShardingError


class Command(migrate.Command):
    """Django's own command, run for each database in turn unless --database names one."""

    help = (
        "Updates the schema of every database, or of the one that --database names. A database "
        "that fails does not stop the others: the command then exits with 1, and run again it "
        "does the rest."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        for action in parser._actions:
            if action.dest == "database":
                action.default = None
                action.help = "Nominates one database to synchronize. Defaults to all of them."

    def get_check_kwargs(self, options: dict[str, Any]) -> Any:
        # Checks that ask a database belong to that database's turn.
        return {**super().get_check_kwargs(options), "databases": None}

    @no_translations
    def handle(self, *args: Any, **options: Any) -> None:
        if options["database"]:
            self._migrate(options["database"], options)
            return
        outcomes = {alias: self._try(alias, options) for alias in connections}
        if options["verbosity"] >= 1 and not options["check_unapplied"]:
            self._summarize(outcomes)
        if failed := [alias for alias, (_, error) in outcomes.items() if error]:
            raise CommandError(
                f"Not done on {', '.join(failed)}, see above. The other databases are done; run "
                f"the same command again for the rest."
            )

    def _try(self, alias: str, options: dict[str, Any]) -> tuple[int, str]:
        """Return the number of migrations done, and what stopped them, if anything."""
        self._done = 0
        if options["verbosity"] >= 1:
            self.stdout.write(self.style.MIGRATE_HEADING(f"Database {alias}:"))
        try:
            self._migrate(alias, options)
        except SystemExit:  # how --check reports
            return self._done, "has unapplied migrations"
        except (CommandError, DatabaseError, ShardingError) as error:
            if options["traceback"]:
                raise
            self.stderr.write(self.style.ERROR(f"{alias}: {error}"))
            return self._done, "failed"
        return self._done, ""

    def _migrate(self, alias: str, options: dict[str, Any]) -> None:
        if not options["skip_checks"]:
            self.check(databases=[alias])
        super().handle(**{**options, "database": alias})

    def migration_progress_callback(
        self, action: str, migration: Any = None, fake: bool = False
    ) -> None:
        super().migration_progress_callback(action, migration, fake)
        self._done += action in ("apply_success", "unapply_success")

    _done = 0

    def _summarize(self, outcomes: dict[str, tuple[int, str]]) -> None:
        width = max(map(len, outcomes))
        self.stdout.write(self.style.MIGRATE_HEADING("Summary:"))
        for alias, (done, error) in outcomes.items():
            result = self.style.ERROR(error) if error else self.style.SUCCESS("OK")
            self.stdout.write(f"  {alias:{width}}  {done:3} migrations  {result}")
