"""Writes the tables of methods into docs/orm.md: `python -m tests.sharding.methods.document`."""

import re
from collections.abc import Iterator
from pathlib import Path

from tests.sharding.methods.table import TABLES

__all__ = ["PATH", "tables"]

PATH: Path = Path(__file__).resolve().parents[3] / "docs" / "orm.md"

_FENCE = "<!-- methods -->"


def tables() -> str:
    """Return the tables as Markdown."""
    return "\n".join(line for title, table in TABLES.items() for line in _table(title, table))


def _table(title: str, table: dict[str, str]) -> Iterator[str]:
    yield from (f"| {title} | async | over several shards |", "| --- | --- | --- |")
    for names, text in table.items():
        name, *twin = names.split()
        kind, _, rest = text.partition(": ")
        shown = f"{kind}: “{rest}”" if kind == "refused" else text
        yield f"| `{name}` | {''.join(f'`{each}`' for each in twin)} | {shown} |"
    yield ""


def main() -> None:
    """Put the tables between their marks."""
    between = re.compile(f"(?<={_FENCE}\n\n).*(?={_FENCE})", re.DOTALL)
    PATH.write_text(between.sub(lambda _: f"{tables()}\n", PATH.read_text()))


if __name__ == "__main__":
    main()
