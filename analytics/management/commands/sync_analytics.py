"""`sync_analytics`: keeps the copies in analytics equal to accounts and profiles."""

import signal
from argparse import ArgumentTypeError
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from time import monotonic
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from tqdm import tqdm

from analytics import sync
from analytics.models import UserAnalytics
from analytics.sync.lock import AnotherSync, only_sync
from sharding.errors import DatabaseUnavailable, ShardingError

_FAILURES = (sync.SyncFailed, DatabaseUnavailable)
_SHOWN = 20  # ids of a bucket, and buckets of a source
_RUNS = 10
_ATTEMPTS = 5
_INTERRUPTED = "Interrupted; what was copied stays, and the next run goes on from there."


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
        what.add_argument(
            "--status", action="store_true", help="Show logs, lag, checkpoints and the last runs."
        )
        what.add_argument(
            "--dry-run", action="store_true", help="Say what a run would do, and do nothing."
        )
        parser.add_argument(
            "--interval",
            type=_number(float, most=86_400),
            metavar="S",
            help="Pause of --follow where nothing is to do, in seconds (default: 0.5).",
        )
        parser.add_argument(
            "--batch-size",
            type=_number(int, most=1_000_000),
            metavar="N",
            help=f"Entries of the log in one batch (default: {sync.BATCH}).",
        )
        parser.add_argument(
            "--no-progress", action="store_false", dest="progress", help="Show no progress bar."
        )

    def handle(self, **options: Any) -> None:
        _require_use(options)
        self.batch_size = options["batch_size"] or sync.BATCH
        # disable=None: a bar on a terminal only.
        self.said: set[str] = set()
        self.hidden = None if options["progress"] else True
        try:
            self._handle(options)
        except AnotherSync as error:
            self.stdout.write(str(error))
        except (ShardingError, *_FAILURES) as error:
            raise CommandError(str(error)) from error
        except (KeyboardInterrupt, SystemExit) as error:
            # An exit code of 0, as of other commands, would say that the copies are up to date.
            raise CommandError(_INTERRUPTED) from error

    def _handle(self, options: dict[str, Any]) -> None:
        if options["user"] is not None:
            self._user(options["user"])
        elif options["status"]:
            self._status()
        elif options["dry_run"]:
            self._dry_run()
        elif options["verify"]:
            self._verify()
        else:
            with only_sync():
                if options["follow"]:
                    self._follow(options["interval"] or 0.5)
                else:
                    self._run(full=options["full"])

    def _run(self, *, full: bool) -> None:
        start, total = monotonic(), sync.SyncResult()

        def copy(source: sync.Source, run: sync.Run) -> None:
            nonlocal total
            for progress in self._persistent(source, full=full):
                run.add(progress.result)
                total += progress.result

        failed = self._each("full" if full else "incremental", sync.sources(), copy)
        self.stdout.write(
            f"{total.upserted} upserted, {total.deleted} deleted, {total.unchanged} unchanged in "
            f"{monotonic() - start:.1f} seconds; lag {_lag(failed)}."
        )
        _require_none(failed, "synced")

    def _each(
        self,
        mode: str,
        sources: Sequence[sync.Source],
        work: Callable[[sync.Source, sync.Run], None],
    ) -> list[str]:
        """Do the work for each source, and record it; return the names of those that failed."""
        failed = []
        for source in sources:
            try:
                with sync.recorded(mode, source) as run:
                    work(source, run)
            except (sync.Overtaken, *_FAILURES) as error:
                failed.append(source.name)
                self._complain(source, error)
        return failed

    def _complain(self, source: sync.Source, error: Exception) -> None:
        if (text := str(error)) not in self.said:  # analytics fails every source alike
            self.said.add(text)
            self.stderr.write(self.style.ERROR(f"{source.name}: {text}"))

    def _persistent(self, source: sync.Source, *, full: bool) -> Any:
        """Sync a source; once more where another process came in between: for one user, say."""
        for left in reversed(range(_ATTEMPTS)):
            try:
                yield from self._shown(source, full=full)
            except sync.Overtaken:
                if not left:
                    raise
            else:
                return

    def _shown(self, source: sync.Source, *, full: bool) -> Any:
        """Sync a source, and show how far it is."""
        with tqdm(unit=" rows", disable=self.hidden, leave=False) as bar:
            for progress in sync.sync_source(source, full=full, batch_size=self.batch_size):
                if progress.news:
                    with bar.external_write_mode(file=self.stdout):
                        self.stdout.write(f"{source.name}: {progress.where}")
                bar.set_description(f"{source.name}: {progress.where}")
                bar.update(progress.result.upserted + progress.result.unchanged)
                yield progress

    def _follow(self, interval: float) -> None:
        stop = sync.Stop()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.request())
        self.stdout.write("Following the logs until SIGTERM or Ctrl-C.")
        self.stdout.flush()
        sync.follow(sync.sources(), interval=interval, batch_size=self.batch_size, stop=stop)
        self.stdout.write("Stopped; what was committed until then is either copied or in the log.")

    def _user(self, user_id: str) -> None:
        failed = self._each(
            "user",
            sync.sources_of(user_id),
            lambda source, run: run.add(sync.sync_key(source, user_id)),
        )
        _require_none(failed, "copied")
        copy = UserAnalytics.objects.filter(pk=user_id).first()
        self.stdout.write(f"Copied {copy}." if copy else "There is no such account; no copy left.")

    def _verify(self) -> None:
        differing = 0

        def look(source: sync.Source, run: sync.Run) -> None:
            nonlocal differing
            if found := self._differences(source):
                differing += found
                run.error = f"{found} rows differ."

        failed = self._each("verify", sync.sources(), look)
        if differing:
            raise CommandError(
                f"{differing} rows differ. Those changed a moment ago are merely not copied yet: "
                f"run `sync_analytics`; `sync_analytics --full` repairs the others."
                + (f" Not compared: {', '.join(failed)}." if failed else "")
            )
        _require_none(failed, "compared")
        self.stdout.write("Every copy equals its row.")

    def _differences(self, source: sync.Source) -> int:
        """Show the buckets of a source that differ; return the number of rows that do."""
        found = 0
        for number, ((low, high), keys) in enumerate(sync.verify(source)):
            found += len(keys)
            if number < _SHOWN:
                shown = ", ".join(map(str, keys[:_SHOWN]))
                more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
                self.stdout.write(f"{source.name}, bucket {low} to {high}: {shown}{more}")
            elif number == _SHOWN:
                self.stdout.write(f"{source.name}: and more buckets.")
        return found

    def _status(self) -> None:
        failed = []
        for source in sync.sources():
            try:
                self._show(sync.status(source))
            except _FAILURES as error:
                failed.append(source.name)
                with suppress(*_FAILURES):  # where only analytics is down
                    self._show(sync.measure(source))
                self._complain(source, error)
        with suppress(*_FAILURES):
            for run in sync.last_runs(_RUNS):
                self.stdout.write(
                    f"{run.started_at:%Y-%m-%d %H:%M:%S}  {run.mode:11} {run.source:18} "
                    f"{run.upserted} upserted, {run.deleted} deleted. {run.error}".rstrip()
                )
        _require_none(failed, "reached")

    def _show(self, found: sync.SourceStatus) -> None:
        checkpoint = f", checkpoint {found.checkpoint[:8]}" if found.checkpoint else ""
        trouble = f"; will compare everything: {found.trouble}" if found.trouble else ""
        self.stdout.write(
            f"{found.source:18} {found.entries:>9} changes in the log, "
            f"{found.bytes / 1024:.0f} KiB, lag {_age(found.lag)}{checkpoint}{trouble}"
        )

    def _dry_run(self) -> None:
        failed = []
        for source in sync.sources():
            try:
                self.stdout.write(f"{source.name:18} would {sync.plan(source)}")
            except _FAILURES as error:
                failed.append(source.name)
                self._complain(source, error)
        _require_none(failed, "reached")


def _require_use(options: dict[str, Any]) -> None:
    """Refuse an option that would have no effect: who gave it expects one."""
    if options["interval"] and not options["follow"]:
        raise CommandError("--interval is for --follow: give both, or neither.")
    for other in ("user", "verify", "status", "dry_run"):
        if options["batch_size"] and (options[other] or options[other] == ""):
            raise CommandError(f"--{other.replace('_', '-')} has no batches: omit --batch-size.")


def _require_none(failed: Sequence[str], done: str) -> None:
    if failed:
        raise CommandError(f"Not {done}: {', '.join(failed)}, see above. Run it again later.")


def _lag(failed: Sequence[str]) -> str:
    known = [sync.lag(source) for source in sync.sources() if source.name not in failed]
    return _age(max(known, default=timedelta())) + (" or more" if failed else "")


def _age(age: timedelta) -> str:
    seconds = age.total_seconds()
    return f"{seconds:.1f} s" if seconds < 120 else str(timedelta(seconds=round(seconds)))


def _number(kind: Callable[[str], Any], *, most: int) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = 0
        if not 0 < value <= most:
            raise ArgumentTypeError(f"{text!r} is not a number above 0 and up to {most}")
        return value

    return read
