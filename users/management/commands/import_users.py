"""`import_users`: accounts and profiles from a file."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from users.importing import ImportFailed, Options, Totals, import_users, rejected_path


class Terminated(KeyboardInterrupt):
    """SIGTERM, as an exception that ends the work as Ctrl-C does."""


class Command(BaseCommand):
    help = (
        "Imports accounts, each with its profile, from CSV with a header or from NDJSON. Columns: "
        "email, and where wanted id (a UUID of version 4), name, is_active, date_joined, "
        "last_login (ISO 8601, UTC where no zone is given), display_name, country, plan, bio, "
        "settings (a JSON object). Lines that are wrong go to FILE.rejected, all others in."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", help="the file, or - for standard input")
        parser.add_argument(
            "--format",
            choices=["csv", "ndjson"],
            help="default: by the name (.ndjson, .jsonl, .json), else csv",
        )
        parser.add_argument(
            "--on-conflict",
            choices=["skip", "update", "error"],
            default="skip",
            help="what to do where an account has the email or the id of a line already: skip the "
            "line, change what the file gives, or stop (default: skip)",
        )
        parser.add_argument(
            "--batch-size",
            type=_positive,
            default=Options.batch_size,
            help="lines that are stored together (default: %(default)s)",
        )
        parser.add_argument(
            "--rejected", type=Path, help="where rejected lines go (default: FILE.rejected)"
        )
        parser.add_argument(
            "--strict", action="store_true", help="exit with 1 where a line was rejected"
        )
        parser.add_argument(
            "--dry-run", action="store_true", help="only check the lines, and write nothing"
        )
        parser.add_argument("--no-progress", action="store_true", help="show no progress bar")

    def handle(self, *, file: str, **options: Any) -> None:
        chosen = Options(
            format=options["format"],
            on_conflict=options["on_conflict"],
            batch_size=options["batch_size"],
            rejected=options["rejected"],
            dry_run=options["dry_run"],
            show_progress=sys.stderr.isatty() and not options["no_progress"],
        )
        totals = Totals()
        name = "Standard input" if file == "-" else file
        try:
            with _terminable():
                import_users(file, chosen, totals=totals)
        except ImportFailed as error:
            raise CommandError(f"{name}: {error} {_remaining(totals, chosen)}") from error
        except KeyboardInterrupt as error:
            self.stderr.write(f"Interrupted. {_remaining(totals, chosen)}")
            raise SystemExit(143 if isinstance(error, Terminated) else 130) from None
        self.stdout.write(f"{name}: {totals}.")
        if totals.rejected:
            self._report_rejected(file, chosen, totals, strict=options["strict"])

    def _report_rejected(self, file: str, chosen: Options, totals: Totals, *, strict: bool) -> None:
        for line, reason, _ in totals.examples:
            self.stderr.write(f"  line {line}: {reason}")
        where = "" if chosen.dry_run else f" See {rejected_path(file, chosen)}."
        number = "1 line was" if totals.rejected == 1 else f"{totals.rejected:,} lines were"
        message = f"{number} rejected.{where}"
        if strict:
            raise CommandError(message)
        self.stderr.write(self.style.WARNING(message))


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def _remaining(totals: Totals, chosen: Options) -> str:
    """Say how far the import came, and how to go on."""
    if chosen.dry_run or not totals.last_line:
        return "Nothing was written."
    again = "the same command" if chosen.on_conflict != "error" else "it with --on-conflict skip"
    return (
        f"All lines up to {totals.last_line:,} are done ({totals}), none after it. Run {again} "
        f"again for the rest."
    )


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM raise Terminated, so that the batch in hand is rolled back and counted right."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
