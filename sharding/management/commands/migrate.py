"""`migrate` over all databases in one command."""

from contextlib import suppress
from traceback import format_exc
from typing import Any

from django.core.checks import Tags
from django.core.management.base import CommandError, CommandParser, no_translations
from django.core.management.commands import migrate
from django.db import connections
from django.db.utils import DatabaseError

from sharding import conf, identity
from sharding.errors import ShardingError
from sharding.migrating import place_content_type_renames
from sharding.moves import record

_UNAPPLIED = "has unapplied migrations"
_FAILED = "failed"


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
        if not (options["check_unapplied"] or options["plan"]):
            _require_no_move()
        if options["database"]:
            self._migrate(options["database"], options)
            return
        outcomes = {alias: self._try(alias, options) for alias in connections}
        if options["verbosity"] >= 1 and not (options["check_unapplied"] or options["plan"]):
            self._summarize(outcomes)
        self._require_success({alias: problem for alias, (_, problem) in outcomes.items()})

    def _try(self, alias: str, options: dict[str, Any]) -> tuple[int, str]:
        """Return the number of migrations done, and what stopped them, if anything."""
        self._done = 0
        if options["verbosity"] >= 1:
            self.stdout.write(self.style.MIGRATE_HEADING(f"Database {conf.label(alias)}:"))
        try:
            self._migrate(alias, options)
        except SystemExit:  # how --check reports
            return self._done, _UNAPPLIED
        except Exception as error:  # a migration's own code may raise anything
            expected = isinstance(error, (CommandError, DatabaseError, ShardingError))
            text = str(error) if expected and not options["traceback"] else format_exc()
            self.stderr.write(self.style.ERROR(f"{conf.label(alias)}: {text}"))
            return self._done, _FAILED
        return self._done, ""

    def _migrate(self, alias: str, options: dict[str, Any]) -> None:
        with identity.unchecked():  # it is this command that sets a shard up
            if not options["skip_checks"]:
                self.check(tags=[Tags.database], databases=[alias])
            super().handle(**{**options, "database": alias})

    def migration_progress_callback(
        self, action: str, migration: Any = None, fake: bool = False
    ) -> None:
        if action in ("apply_start", "unapply_start"):
            place_content_type_renames(migration)
        super().migration_progress_callback(action, migration, fake)
        self._done += action in ("apply_success", "unapply_success")

    _done = 0

    def _summarize(self, outcomes: dict[str, tuple[int, str]]) -> None:
        width = max(len(conf.label(alias)) for alias in outcomes)
        self.stdout.write(self.style.MIGRATE_HEADING("Summary:"))
        for alias, (done, problem) in outcomes.items():
            result = self.style.ERROR(problem) if problem else self.style.SUCCESS("OK")
            noun = "migration" if done == 1 else "migrations"
            self.stdout.write(f"  {conf.label(alias):{width}}  {done:3} {noun:10}  {result}")

    def _require_success(self, problems: dict[str, str]) -> None:
        def named(problem: str) -> str:
            return ", ".join(conf.label(a) for a, found in problems.items() if found == problem)

        if failed := named(_FAILED):
            raise CommandError(
                f"Not done on {failed}, see above. The other databases are done; run the same "
                f"command again for the rest."
            )
        if unapplied := named(_UNAPPLIED):
            raise CommandError(f"There are unapplied migrations on {unapplied}.")


def _require_no_move() -> None:
    """An added column would stop the replication that copies the rows."""
    with suppress(DatabaseError):  # the table may be what this migrate is about to make
        if move := record.active():
            raise CommandError(
                f"{move} is under way, in the state {move.state}. Finish it, or abort it, before "
                f"migrating: see `manage.py shards status`."
            )
