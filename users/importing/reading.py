"""From records to batches of valid rows, and of lines that are refused with a reason.

Memory is bounded by one batch and the longest line, however long the file is.
"""

from collections import defaultdict
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import NamedTuple, TypeVar, cast

from users.importing.records import LONGEST_LINE, Record, unreadable
from users.importing.staging import NULL
from users.importing.values import PARSERS, Parser

__all__ = ["ACCOUNT", "PROFILE", "Batch", "Rejected", "Row", "batches"]

# The columns that make up `Row.account` and `Row.profile`.
ACCOUNT = ("id", "email", "name", "is_active", "date_joined", "last_login")
PROFILE = ("id", "date_joined", "display_name", "country", "plan", "bio", "settings")

_Item = TypeVar("_Item", Record, "Row")
_Reasons = defaultdict[int, list[str]]  # by line


class Rejected(NamedTuple):
    """A line that is not imported: its number, the reason, the line as it stands in the file."""

    line: int
    reason: str
    content: str


class Row(NamedTuple):
    """A valid line; `account` and `profile` are lines of COPY's text format."""

    line: int
    content: str
    id: str
    email: str
    account: str
    profile: str

    def about(self, user_id: str) -> "Row":
        """Return the row as one about another account than the id in its line says."""
        account, profile = self.account[len(self.id) :], self.profile[len(self.id) :]
        return self._replace(id=user_id, account=user_id + account, profile=user_id + profile)


# Row(...) takes three times as long, which shows.
_new_row: "Callable[[tuple[int | str, ...]], Row]" = partial(tuple.__new__, Row)


@dataclass
class Batch:
    """What becomes of consecutive lines; no two rows have the same id or email."""

    first_line: int
    last_line: int
    rows: list[Row]
    rejected: list[Rejected]


def batches(header: Sequence[str], records: Iterator[Record], *, size: int) -> Generator[Batch]:
    """Yield the records in batches of `size`, reading no further than the batch asked for."""
    while chunk := list(islice(records, size)):
        yield _batch(header, chunk)


def _batch(header: Sequence[str], records: list[Record]) -> Batch:
    reasons: _Reasons = defaultdict(list)
    _refuse_unreadable(records, reasons)
    rows = _rows(header, _without(reasons, records), reasons)
    _refuse_doubles(rows, reasons)
    rejected = [
        Rejected(record.line, "; ".join(reasons[record.line]), record.content.rstrip("\r\n"))
        for record in records
        if record.line in reasons
    ]
    return Batch(records[0].line, records[-1].line, _without(reasons, rows), rejected)


def _without(reasons: _Reasons, items: list[_Item]) -> list[_Item]:
    return [item for item in items if item.line not in reasons] if reasons else items


def _refuse_unreadable(records: list[Record], reasons: _Reasons) -> None:
    for record in records:
        content, reason = record.content, record.reason
        # Of most lines this says enough.
        if not content.isascii() or "\0" in content or len(content) > LONGEST_LINE:
            reason = unreadable(content) or reason
        if reason:
            reasons[record.line].append(reason)


def _rows(header: Sequence[str], records: list[Record], reasons: _Reasons) -> list[Row]:
    """Return the rows of records, and note what is wrong with values; such rows are no good."""
    if not records:
        return []
    lines = [record.line for record in records]
    # A file without ids gives everybody a new one; of other columns NULL is "not given".
    given: dict[str, Sequence[str | None]] = {"id": [""] * len(lines)}
    given.update(zip(header, zip(*[record.values for record in records], strict=True), strict=True))
    parsed = {name: _parsed(name, given[name], lines, reasons) for name in given}
    absent = [NULL] * len(lines)
    accounts = zip(*[parsed.get(name, absent) for name in ACCOUNT], strict=True)
    profiles = zip(*[parsed.get(name, absent) for name in PROFILE], strict=True)
    contents = [record.content for record in records]
    texts = map("\t".join, accounts), map("\t".join, profiles)
    values = zip(lines, contents, parsed["id"], parsed["email"], *texts, strict=True)
    return list(map(_new_row, values))


def _parsed(
    name: str, column: Sequence[str | None], lines: list[int], reasons: _Reasons
) -> Sequence[str]:
    """Return the values of a column; one that is wrong is noted, and any text takes its place."""
    try:
        return _parse(PARSERS[name], column)
    except ValueError:
        return [
            _parsed_alone(name, text, line, reasons)
            for text, line in zip(column, lines, strict=True)
        ]


def _parsed_alone(name: str, text: str | None, line: int, reasons: _Reasons) -> str:
    try:
        (value,) = _parse(PARSERS[name], [text])
    except ValueError as error:
        reasons[line].append(f"{name}: {error}")
        return ""
    return value


def _parse(parse: Parser, column: Sequence[str | None]) -> Sequence[str]:
    texts = [text for text in column if text is not None] if None in column else column
    values = parse(cast("Sequence[str]", texts))
    if texts is column:
        return values
    remaining = iter(values)
    return [NULL if text is None else next(remaining) for text in column]


def _refuse_doubles(rows: list[Row], reasons: _Reasons) -> None:
    for name, values in (("id", [row.id for row in rows]), ("email", [row.email for row in rows])):
        if len(set(values)) == len(values):
            continue
        first: dict[str, int] = {}
        for row, value in zip(rows, values, strict=True):
            if row.line not in reasons and first.setdefault(value, row.line) != row.line:
                reasons[row.line].append(f"{name}: is that of line {first[value]} too")
