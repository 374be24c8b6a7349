"""The file of the lines that were not imported."""

import csv
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from users.importing.errors import UnwritableFile
from users.importing.reading import Rejected

__all__ = ["RejectedFile", "rejected_file"]


class RejectedFile:
    """A CSV file with line number, reason and the line as it was; it exists when one was added."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._unfinished = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        self._file: TextIO | None = None
        self.published = False

    def add(self, rejected: Sequence[Rejected]) -> None:
        """Append lines. Raises UnwritableFile."""
        if not rejected:
            return
        try:
            writer = csv.writer(self._file or self._create())
            writer.writerows(rejected)
        except OSError as error:
            raise UnwritableFile(f"{self.path} cannot be written: {error.strerror}.") from error

    def publish(self) -> None:
        """Give the file its name, now that it is complete."""
        if self._file:
            self._file.close()
            self._unfinished.replace(self.path)
            self.published = True

    def _create(self) -> TextIO:
        # surrogateescape: what was no UTF-8 in the line is the same bytes here.
        self._file = self._unfinished.open(
            "w", encoding="utf-8", errors="surrogateescape", newline=""
        )
        csv.writer(self._file).writerow(Rejected._fields)
        return self._file


@contextmanager
def rejected_file(path: Path) -> Iterator[RejectedFile]:
    """Give a file to add lines to; an import without any removes that of an earlier one.

    An import that breaks off leaves a file with what it rejected so far, if anything.
    """
    file = RejectedFile(path)
    try:
        yield file
    finally:
        file.publish()
    if not file.published:
        path.unlink(missing_ok=True)
