"""`manage.py shards`: look at the shards, move slots between them, check that all is in place."""

import sys
from argparse import ArgumentTypeError
from collections.abc import Callable, Sequence
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError
from tqdm import tqdm

from sharding import identity, lifecycle, slot_cache
from sharding.errors import InvalidSlotMap, ShardingError
from sharding.models.moves import Move
from sharding.moves import checking, planning, prechecks, run
from sharding.moves import status as looking
from sharding.moves.copying import Progress
from sharding.moves.planning import Planned
from sharding.slot_sql import ranges
from sharding.slots import read_ranges

__all__ = ["Command"]


class Command(BaseCommand):
    """Parses, calls one function, prints what it returns."""

    help = (
        "Looks at the shards (status), moves users between servers while the application runs "
        "(move, rebalance), and checks that every row stands where it belongs (check). See "
        "docs/resharding.md."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parsers = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
        parsers.add_parser("status", help="every shard's health, size, slots, and what is left")
        move = parsers.add_parser("move", help="move slots to another shard")
        move.add_argument("--slots", type=_slots, metavar="RANGES", help="e.g. 300-333 or 5,10-12")
        move.add_argument("--to", metavar="SHARD", help="the shard that shall own them")
        move.add_argument("--resume", action="store_true", help="go on with the one that stopped")
        move.add_argument("--abort", action="store_true", help="give up the one that stopped")
        rebalance = parsers.add_parser(
            "rebalance", help="even the shards out, by rows, in as few moves as it takes"
        )
        rebalance.add_argument(
            "--add", action="append", default=[], metavar="SHARD", help="a new one, to be filled"
        )
        rebalance.add_argument(
            "--empty", action="append", default=[], metavar="SHARD", help="one to take away"
        )
        for each in (move, rebalance):
            each.add_argument("--dry-run", action="store_true", help="say what it would do")
            each.add_argument("--no-progress", action="store_true", help="print no progress bar")
        check = parsers.add_parser(
            "check", help="rows on a shard that does not own them, what moves left; 1 if anything"
        )
        check.add_argument(
            "--repair", action="store_true", help="set right what can be without losing a row"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        lifecycle.install()
        actions: dict[str, Callable[[dict[str, Any]], None]] = {
            "status": self._status,
            "move": self._move,
            "rebalance": self._rebalance,
            "check": self._check,
        }
        try:
            with identity.unchecked():  # it must be able to look at what is wrong
                actions[options["action"]](options)
        except (ShardingError, DatabaseError) as error:
            raise CommandError(str(error)) from error

    def _status(self, options: dict[str, Any]) -> None:
        shards = looking.status()
        rows = [("shard", "health", "slots", "rows", "size", "connections", "migrations", "move")]
        rows += [
            (
                *(s.alias, s.health, str(s.slots), f"{s.rows:,}", f"{s.bytes / 1e6:,.0f} MB"),
                *(s.connections, s.migrations, s.move),
            )
            for s in shards
        ]
        self._table(rows)
        for shard in shards:
            self.stdout.write(f"{shard.alias} owns {shard.ranges or 'nothing'}")
        for problem in dict.fromkeys(problem for shard in shards for problem in shard.problems):
            self.stdout.write(self.style.WARNING(problem))
        if move := looking.under_way():
            self.stdout.write(f"{move}, started {move.started_at:%Y-%m-%d %H:%M}: {move.state}.")
            if move.problem:
                self.stdout.write(f"It stopped: {move.problem}")

    def _table(self, rows: Sequence[tuple[str, ...]]) -> None:
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            self.stdout.write("  ".join(cells).rstrip())

    def _move(self, options: dict[str, Any]) -> None:
        if options["resume"] and options["abort"]:
            raise CommandError("Say --resume or --abort, not both.")
        if options["resume"] or options["abort"]:
            if options["slots"] or options["to"]:
                raise CommandError("--resume and --abort are about the move that stopped, whole.")
            self._go_on(options)
            return
        if not options["slots"] or not options["to"]:
            raise CommandError("Say which slots and where to: --slots 300-333 --to shard_4.")
        owners = slot_cache.renew().owners
        # Without those that are there already, as after a first try; of nothing else it is refused.
        sources = sorted({owners[slot] for slot in options["slots"]} - {options["to"]})
        self._run(
            [
                Planned(
                    source,
                    options["to"],
                    tuple(s for s in options["slots"] if owners[s] == source),
                    0,
                )
                for source in sources or [options["to"]]
            ],
            options,
        )

    def _go_on(self, options: dict[str, Any]) -> None:
        move = run.resume()
        if options["dry_run"]:
            word = "go on with" if options["resume"] else "give up"
            self.stdout.write(f"Would {word} {move}, which is in the state {move.state}.")
            return
        with run.only_mover():
            self._take(move, run.abort if options["abort"] else run.run, options)

    def _rebalance(self, options: dict[str, Any]) -> None:
        planned = planning.rebalance(add=options["add"], empty=options["empty"])
        if not planned:
            self.stdout.write("The shards are even: nothing to move.")
            return
        self._run(planned, options)

    def _run(self, planned: Sequence[Planned], options: dict[str, Any]) -> None:
        for each in planned:
            about = f", about {each.rows:,} rows" if each.rows else ""
            self.stdout.write(
                f"{each.source} -> {each.target}: {len(each.slots)} slots "
                f"({_shown(each.slots)}){about}"
            )
        if options["dry_run"]:
            for each in planned:
                prechecks.require(each.source, each.target, each.slots)
            self.stdout.write("Nothing stands in the way. Nothing was changed (--dry-run).")
            return
        with run.only_mover():
            for each in planned:
                self._take(run.begin(each.source, each.target, each.slots), run.run, options)

    def _take(
        self, move: Move, function: Callable[[Move, Any], None], options: dict[str, Any]
    ) -> None:
        try:
            with _Bar(self.stdout.write, hidden=options["no_progress"]) as bar:
                function(move, bar.report)
        except (KeyboardInterrupt, SystemExit):
            # An exit code of 0 would say that the slots are where they should be.
            raise CommandError(
                f"Stopped: {move} is in the state {move.state}. Go on with `manage.py shards move "
                f"--resume`, or give it up with --abort."
            ) from None
        self.stdout.write(self.style.SUCCESS(f"{move}: {move.state}, {move.rows:,} rows."))

    def _check(self, options: dict[str, Any]) -> None:
        left = 0
        for finding in checking.check(repair=options["repair"]):
            left += not finding.repaired
            self.stdout.write(f"{finding.text}{' Repaired.' if finding.repaired else ''}")
        if left:
            raise CommandError(f"{left} findings are left, see above.")
        self.stdout.write("Every row stands where it belongs.")


class _Bar:
    """Shows a move's progress: a bar on a terminal, else a line for each new text."""

    def __init__(self, write: Callable[[str], object], *, hidden: bool) -> None:
        self.write = write
        self.terminal = not hidden and sys.stderr.isatty()
        self.text = ""
        self.bar: Any = None

    def __enter__(self) -> "_Bar":
        return self

    def __exit__(self, *error: object) -> None:
        self._close()

    def report(self, progress: Progress) -> None:
        fresh = progress.text.partition(",")[0] != self.text
        self.text = progress.text.partition(",")[0]
        if fresh:
            self._close()
            self.write(progress.text)
        if self.terminal and progress.total:
            self.bar = self.bar or tqdm(total=progress.total, unit_scale=True, leave=False)
            self.bar.update(progress.done - self.bar.n)

    def _close(self) -> None:
        if self.bar:
            self.bar.close()
        self.bar = None


def _slots(text: str) -> tuple[int, ...]:
    try:
        return tuple(sorted(read_ranges(text)))
    except InvalidSlotMap as error:
        raise ArgumentTypeError(str(error)) from error


def _shown(slots: Sequence[int]) -> str:
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in ranges(slots))
