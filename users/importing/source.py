"""The file to import: opened, its format known, its lines read one after the other."""

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from io import TextIOWrapper
from pathlib import Path
from typing import BinaryIO, Literal

from users.importing.errors import UnreadableFile
from users.importing.records import LONGEST_LINE, Records, csv_records, ndjson_records

__all__ = ["STDIN", "Format", "Source", "open_source"]

Format = Literal["csv", "ndjson"]

STDIN = "-"
_NDJSON = (".ndjson", ".jsonl", ".json")


@dataclass
class Source:
    """An open file. `size` is None where it is not known before the end, as of a pipe."""

    file: BinaryIO
    text: TextIOWrapper
    format: Format
    size: int | None

    @property
    def position(self) -> int:
        """How many bytes were read."""
        return self.file.tell()

    def records(self) -> Records:
        """Return the header and the records. Raises UnreadableFile, WrongColumns."""
        return csv_records(self._lines()) if self.format == "csv" else ndjson_records(self._lines())

    def _lines(self) -> Iterator[str]:
        """Yield the lines; of one that is far too long, only so much that this can be seen."""
        longest = LONGEST_LINE + 1
        try:
            for line in iter(partial(self.text.readline, longest), ""):
                yield line
                while len(line) == longest and not line.endswith(("\n", "\r")):
                    line = self.text.readline(longest)
        except OSError as error:
            raise UnreadableFile(f"It cannot be read further: {error.strerror}.") from error


@contextmanager
def open_source(name: str, format: Format | None = None) -> Iterator[Source]:
    """Open a file, or standard input for "-". Raises UnreadableFile."""
    by_name: Format = "ndjson" if Path(name).suffix.lower() in _NDJSON else "csv"
    format = format or by_name
    with _opened(name) as file:
        text = TextIOWrapper(
            file,
            encoding="utf-8",
            errors="surrogateescape",  # what is no UTF-8 must spoil its own line only
            newline="" if format == "csv" else "\n",  # csv tells the ends of lines itself
        )
        try:
            yield Source(file, text, format, _size(file))
        finally:
            text.detach()


def _opened(name: str) -> AbstractContextManager[BinaryIO]:
    if name == STDIN:
        return nullcontext(sys.stdin.buffer)
    try:
        return Path(name).open("rb")
    except OSError as error:
        raise UnreadableFile(f"It cannot be opened: {error.strerror}.") from error


def _size(file: BinaryIO) -> int | None:
    try:
        status = os.fstat(file.fileno())
    except OSError:  # no real file
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None
