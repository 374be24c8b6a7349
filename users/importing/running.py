"""An import from the file's beginning to its end: reading ahead, counting, showing progress."""

import gc
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import NoReturn, TypeVar

from django.db import DatabaseError
from tqdm import tqdm

from sharding.errors import DatabaseUnavailable, ShardingError
from users.importing.errors import BatchFailed, UnwritableFile
from users.importing.reading import Batch, Rejected, batches
from users.importing.rejected import RejectedFile, rejected_file
from users.importing.source import STDIN, Format, Source, open_source
from users.importing.writing import OnConflict, Outcome, Writer

__all__ = ["Options", "Totals", "import_users", "rejected_path"]

_Item = TypeVar("_Item")
_EXAMPLES = 5


@dataclass(frozen=True)
class Options:
    """How to import; `rejected` is where rejected lines go, by default beside the file."""

    format: Format | None = None
    on_conflict: OnConflict = "skip"
    batch_size: int = 10_000
    rejected: Path | None = None
    dry_run: bool = False
    show_progress: bool = False


@dataclass
class Totals:
    """What is done so far: all lines up to `last_line`, which ends the last batch stored."""

    created: int = 0
    updated: int = 0
    skipped: int = 0
    rejected: int = 0
    last_line: int = 0
    examples: list[Rejected] = field(default_factory=list)
    started: float = field(default_factory=monotonic)

    def add(self, batch: Batch, outcome: Outcome, rejected: list[Rejected]) -> None:
        """Count a batch that is stored."""
        self.created += len(outcome.created)
        self.updated += len(outcome.updated)
        self.skipped += outcome.skipped
        self.rejected += len(rejected)
        self.examples += rejected[: _EXAMPLES - len(self.examples)]
        self.last_line = batch.last_line

    def __str__(self) -> str:
        seconds = monotonic() - self.started
        rows = self.created + self.updated + self.skipped + self.rejected
        return (
            f"{self.created:,} created, {self.updated:,} updated, {self.skipped:,} skipped, "
            f"{self.rejected:,} rejected in {seconds:,.1f} s ({rows / seconds:,.0f} rows/s)"
        )


def import_users(
    name: str, options: Options = Options(), *, totals: Totals | None = None
) -> Totals:
    """Import a file, or standard input for "-", and return what became of its lines.

    Raises ImportFailed. Hand in `totals` to read from it afterwards how far an import came that
    did not return: what is counted is stored, and of what follows no account is.
    """
    totals = totals or Totals()
    with (
        open_source(name, options.format) as source,
        _rejected_file(name, options) as rejected_lines,
        _bar(name, source, options) as bar,
    ):
        writer = Writer(options.on_conflict)
        with _uncollected(), closing(_batches(source, options.batch_size)) as found:
            for batch in found:
                outcome = Outcome(batch.rows) if options.dry_run else _write(writer, batch)
                rejected = sorted([*batch.rejected, *outcome.rejected])
                if rejected_lines:
                    rejected_lines.add(rejected)
                totals.add(batch, outcome, rejected)
                bar.update((source.position if source.size else batch.last_line) - bar.n)
    return totals


def rejected_path(name: str, options: Options) -> Path:
    """Return where the rejected lines of an import go. Raises UnwritableFile."""
    path = options.rejected or Path("stdin.rejected" if name == STDIN else f"{name}.rejected")
    if name != STDIN and path.resolve() == Path(name).resolve():
        raise UnwritableFile(f"{path} is the file to import: name another one for rejected lines.")
    return path


def _rejected_file(name: str, options: Options) -> AbstractContextManager[RejectedFile | None]:
    path = rejected_path(name, options)
    return nullcontext() if options.dry_run else rejected_file(path)


def _bar(name: str, source: Source, options: Options) -> "tqdm[NoReturn]":
    return tqdm(
        total=source.size,
        unit="B" if source.size else " lines",
        unit_scale=True,
        desc=Path(name).name,
        disable=not options.show_progress,
        leave=False,
    )


@contextmanager
def _uncollected() -> Iterator[None]:
    """Keep the garbage collector from going through ten thousands of rows, none in a cycle.

    It took a quarter of the time of reading.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _batches(source: Source, size: int) -> Generator[Batch]:
    found = batches(*source.records(), size=size)
    # Not on a pipe: a thread that waits for input cannot be interrupted.
    return found if source.size is None else _ahead(found)


def _ahead(items: Iterator[_Item]) -> Generator[_Item]:
    """Yield the items, and get the next one in the meantime; one, so that memory stays bounded."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        coming = pool.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = pool.submit(next, items, None)
            yield item


def _write(writer: Writer, batch: Batch) -> Outcome:
    try:
        return writer.write(batch.rows)
    except (DatabaseUnavailable, ShardingError) as error:
        raise BatchFailed(str(error)) from error
    except DatabaseError as error:
        message = " ".join(str(error).split())
        raise BatchFailed(
            f"Lines {batch.first_line:,} to {batch.last_line:,} were refused: {message}"
        ) from error
