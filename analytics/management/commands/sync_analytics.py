"""`sync_analytics`: keeps the copies in analytics equal to accounts and profiles."""

import signal
from argparse import ArgumentTypeError
from collections.abc import Callable
from datetime import timedelta
from threading import Event
from time import monotonic
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from tqdm import tqdm

from analytics import sync
from analytics.sync.lock import AnotherSync, only_sync
from sharding.errors import DatabaseUnavailable, InvalidShardKey

_FAILURES = (sync.SyncFailed, DatabaseUnavailable)
_SHOWN = 20  # ids of a bucket


class Command(BaseCommand):
    """A shell around `analytics.sync`."""

    help = (
        "Copies what changed to analytics: accounts from the primary, profiles from every shard. "
        "Compares everything where the log of changes does not suffice: at first, and after a "
        "server was restored. A source that fails does not stop the others; the command then "
        "exits with 1, and run again it catches up."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        what = parser.add_mutually_exclusive_group()
        what.add_argument(
            "--full", action="store_true", help="Compare everything and copy what differs."
        )
        what.add_argument(
            "--verify",
            action="store_true",
            help="Compare everything, list what differs and change nothing; 1 if anything does.",
        )
        what.add_argument("--user", metavar="UUID", help="Copy this user only.")
        what.add_argument(
            "--follow",
            action="store_true",
            help="Go on until SIGTERM or Ctrl-C, finishing the batch in hand.",
        )
        what.add_argument("--status", action="store_true", help="Show logs, lag and the last runs.")
        what.add_argument(
            "--dry-run", action="store_true", help="Say what would be done, and do nothing."
        )
        parser.add_argument(
            "--interval",
            type=_positive(float),
            default=0.5,
            metavar="S",
            help="Pause of --follow where nothing is to do, in seconds (default: 0.5).",
        )
        parser.add_argument(
            "--batch-size",
            type=_positive(int),
            default=sync.BATCH,
            metavar="N",
            help=f"Entries of the log in one batch (default: {sync.BATCH}).",
        )
        parser.add_argument(
            "--no-progress", action="store_false", dest="progress", help="Show no progress bar."
        )

    def handle(self, **options: Any) -> None:
        if options["user"] is not None:
            self._user(options["user"])
        elif options["status"] or options["dry_run"]:
            self._status(runs=options["status"])
        elif options["verify"]:
            self._verify()
        else:
            try:
                with only_sync():
                    self._follow(options) if options["follow"] else self._run(options)
            except AnotherSync as error:
                self.stdout.write(str(error))
            except _FAILURES as error:
                raise CommandError(str(error)) from error

    def _run(self, options: dict[str, Any]) -> None:
        start, total = monotonic(), sync.SyncResult()
        failed = []
        for source in sync.sources():
            try:
                total += self._source(source, options)
            except sync.Overtaken as error:
                self.stdout.write(str(error))
            except _FAILURES as error:
                failed.append(source.name)
                self.stderr.write(self.style.ERROR(f"{source.name}: {error}"))
        self.stdout.write(
            f"{total.upserted} upserted, {total.deleted} deleted, {total.unchanged} unchanged in "
            f"{monotonic() - start:.1f} seconds; lag {self._lag(failed)}."
        )
        if failed:
            raise CommandError(f"Not synced: {', '.join(failed)}, see above. Run it again later.")

    def _source(self, source: sync.Source, options: dict[str, Any]) -> sync.SyncResult:
        mode = "full" if options["full"] else "incremental"
        # disable=None: a bar on a terminal only.
        hidden = None if options["progress"] else True
        with sync.recorded(mode, source) as run, tqdm(unit=" rows", disable=hidden) as bar:
            batches = sync.sync_source(
                source, full=options["full"], batch_size=options["batch_size"]
            )
            for progress in batches:
                run.add(progress.result)
                if progress.result == sync.SyncResult():
                    with bar.external_write_mode(file=self.stdout):
                        self.stdout.write(f"{source.name}: {progress.where}")
                bar.set_description(f"{source.name}: {progress.where}", refresh=False)
                bar.update(progress.result.upserted + progress.result.unchanged)
        return run.result

    def _lag(self, failed: list[str]) -> str:
        known = [sync.lag(source) for source in sync.sources() if source.name not in failed]
        return _seconds(max(known, default=timedelta())) + (" or more" if failed else "")

    def _follow(self, options: dict[str, Any]) -> None:
        stop = Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        self.stdout.write("Following the logs until SIGTERM or Ctrl-C.")
        sync.follow(
            sync.sources(),
            interval=options["interval"],
            batch_size=options["batch_size"],
            stop=stop,
        )
        self.stdout.write("Stopped; what was committed until then is either copied or in the log.")

    def _user(self, user_id: str) -> None:
        try:
            copy = sync.sync_user(user_id)
        except (InvalidShardKey, *_FAILURES) as error:
            raise CommandError(str(error)) from error
        self.stdout.write(f"Copied {copy}." if copy else "There is no such account; no copy left.")

    def _verify(self) -> None:
        differing = 0
        try:
            for source in sync.sources():
                for (low, high), keys in sync.verify(source):
                    differing += len(keys)
                    shown = ", ".join(map(str, keys[:_SHOWN]))
                    more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
                    self.stdout.write(f"{source.name}, bucket {low} to {high}: {shown}{more}")
        except _FAILURES as error:
            raise CommandError(str(error)) from error
        if differing:
            raise CommandError(
                f"{differing} rows differ. Those changed a moment ago are merely not copied yet; "
                f"`sync_analytics --full` repairs the others."
            )
        self.stdout.write("Every copy equals its row.")

    def _status(self, *, runs: bool) -> None:
        failed = []
        for source in sync.sources():
            try:
                found = sync.status(source)
            except _FAILURES as error:
                failed.append(source.name)
                self.stderr.write(self.style.ERROR(f"{source.name}: {error}"))
                continue
            trouble = f"; will compare everything: {found.trouble}" if found.trouble else ""
            self.stdout.write(
                f"{found.source:18} {found.entries:>9} changes in the log, "
                f"{found.bytes / 1024:.0f} KiB, lag {_seconds(found.lag)}{trouble}"
            )
        if runs and not failed:
            self._last_runs()
        if failed:
            raise CommandError(f"Not reached: {', '.join(failed)}.")

    def _last_runs(self) -> None:
        for run in sync.last_runs():
            outcome = run.error or f"{run.upserted} upserted, {run.deleted} deleted"
            self.stdout.write(
                f"{run.started_at:%Y-%m-%d %H:%M:%S}  {run.mode:11} {run.source:18} {outcome}"
            )


def _seconds(age: timedelta) -> str:
    return f"{age.total_seconds():.1f} s"


def _positive(kind: Callable[[str], Any]) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = 0
        if not value > 0:
            raise ArgumentTypeError(f"{text!r} is not a number above 0")
        return value

    return read
