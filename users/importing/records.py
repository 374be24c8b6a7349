"""From lines to records: the texts of one user's columns, or why a line has none. Opens nothing.

Lines come as text in which bytes that are no UTF-8 stand as lone surrogates ("surrogateescape").
Blank lines are no records.
"""

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain, islice, tee
from typing import TYPE_CHECKING, Any, NamedTuple

from users.importing.errors import UnreadableFile, WrongColumns
from users.importing.values import PARSERS, unique

if TYPE_CHECKING:
    from _csv import Reader

__all__ = [
    "COLUMNS",
    "LONGEST_LINE",
    "Record",
    "Records",
    "csv_records",
    "ndjson_records",
    "unreadable",
]

COLUMNS = tuple(PARSERS)
LONGEST_LINE = 1_000_000  # characters; csv allows 131,072 a field

_PRIVILEGES = {"password", "is_staff", "is_superuser"}


class Record(NamedTuple):
    """A line's number and content, and its values in the header's order or the reason for none.

    A record of several lines has the number of its first. A value of None is not given.
    """

    line: int
    content: str
    values: Sequence[str | None]
    reason: str = ""


# Record(...) takes three times as long, which shows.
_new_record: "Callable[[tuple[object, ...]], Record]" = partial(tuple.__new__, Record)

Records = tuple[Sequence[str], Iterator[Record]]


def csv_records(lines: Iterable[str]) -> Records:
    """Return a CSV file's header and its records. Raises UnreadableFile and WrongColumns."""
    lines, contents = tee(_unmarked(lines))
    reader = csv.reader(lines, strict=True)
    header = _header(reader, contents)
    _require_known(header)
    return header, _csv_records(reader, contents, width=len(header))


def ndjson_records(lines: Iterable[str]) -> Records:
    """Return COLUMNS and the records of a file with one JSON object a line.

    Raises UnreadableFile. A line with an unknown name is refused when its turn comes.
    """
    numbered = ((n, line) for n, line in enumerate(_unmarked(lines), start=1) if line.strip())
    first = next(numbered, None)
    if not first:
        raise UnreadableFile("It holds no lines.")
    if first[1].lstrip().startswith("["):
        raise UnreadableFile(
            "It is one JSON array. Write one object a line, without brackets and commas around "
            "them, as `jq -c '.[]'` does."
        )
    return COLUMNS, (_ndjson_record(*pair) for pair in chain([first], numbered))


def unreadable(content: str) -> str:
    """Return why a text cannot be stored; empty when it can."""
    if "\0" in content:
        return "holds a NUL character"
    if len(content) > LONGEST_LINE:
        return f"is longer than {LONGEST_LINE:,} characters"
    if not content.isascii():
        try:
            content.encode()
        except UnicodeEncodeError:
            return "is not UTF-8"
    return ""


def _unmarked(lines: Iterable[str]) -> Iterator[str]:
    """Return the lines, without the byte order mark that some programs begin a file with."""
    lines = iter(lines)
    return chain((line.removeprefix("\ufeff") for line in islice(lines, 1)), lines)


def _csv_records(reader: "Reader", contents: Iterator[str], width: int) -> Iterator[Record]:
    """Yield the records; `contents` are the lines that the reader reads, once more."""
    read = reader.line_num
    while True:
        try:
            values, reason = next(reader), ""
        except StopIteration:
            return
        except csv.Error as error:
            values, reason = [], f"is no CSV: {error}"
        line, read = read + 1, reader.line_num
        content = next(contents) if line == read else "".join(islice(contents, read - line + 1))
        if len(values) == width:
            yield _new_record((line, content, values, ""))
        elif values or reason:
            reason = reason or f"has {len(values)} fields, and the header {width}"
            yield Record(line, content, (), reason)


def _header(reader: "Reader", contents: Iterator[str]) -> list[str]:
    try:
        header = next(reader, [])
    except csv.Error as error:
        raise UnreadableFile(f"Its first line is no header: {error}.") from None
    if unreadable("".join(islice(contents, reader.line_num))):
        raise UnreadableFile("It is no text in UTF-8: save it as such, or convert it with iconv.")
    if not header:
        raise UnreadableFile("It is empty, or its first line is: that must name the columns.")
    return [name.strip() for name in header]


def _require_known(header: Sequence[str]) -> None:
    if refused := _PRIVILEGES.intersection(header):
        raise WrongColumns(
            f"{_listed(refused)} cannot be imported: rights are given in the admin, and people "
            f"choose their password themselves. Remove the column."
        )
    if unknown := set(header).difference(COLUMNS):
        raise WrongColumns(f"Unknown: {_listed(unknown)}. The columns are {', '.join(COLUMNS)}.")
    if doubled := {name for name in header if header.count(name) > 1}:
        raise WrongColumns(f"{_listed(doubled)} stands more than once in the header.")
    if "email" not in header:
        raise WrongColumns(
            f"The column email is missing. The columns are {', '.join(COLUMNS)}; only email "
            f"must be there."
        )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(name or "a column without a name" for name in sorted(names))


def _ndjson_record(line: int, content: str) -> Record:
    try:
        return Record(line, content, _values(content))
    except ValueError as error:
        return Record(line, content, (), str(error))


def _values(content: str) -> list[str | None]:
    """Return the values of a line of NDJSON. Raises ValueError with a reason."""
    try:
        found = json.loads(content, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise ValueError("is no JSON object")
    if refused := _PRIVILEGES.intersection(found):
        raise ValueError(f"{_listed(refused)} cannot be imported")
    if unknown := found.keys() - set(COLUMNS):
        raise ValueError(f"unknown: {_listed(unknown)}")
    return [_text(name, found.get(name)) for name in COLUMNS]


def _text(name: str, value: Any) -> str | None:
    """Return a JSON value as the text that would stand in a CSV file. Raises ValueError."""
    if value is None:
        return "" if name in ("id", "email") else None
    if name == "settings" and isinstance(value, dict):
        return json.dumps(value)
    if name == "is_active" and isinstance(value, bool):
        return str(value).lower()
    if name == "settings" or not isinstance(value, str):
        kind = {"settings": "an object", "is_active": "true or false"}.get(name, "a text")
        raise ValueError(f"{name}: is not {kind}")
    if reason := unreadable(value):  # by \u0000 and \ud800
        raise ValueError(f"{name}: {reason}")
    return value
