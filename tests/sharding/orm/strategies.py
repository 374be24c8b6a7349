"""Hypothesis strategies of examples: one for each area of what a queryset does."""

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from tests.sharding.orm.grammar import ACTIVITY, PROFILE
from tests.sharding.orm.reference import Example

__all__ = ["heads", "sentences", "ties", "values"]

_DEEPEST = 4

Grammar = dict[str, list[str]]
Names = dict[str, str]


class _Writer:
    """Writes what symbols stand for; given to str.format_map in place of a dict."""

    def __init__(
        self, draw: Callable[..., Any], here: Grammar, depth: int = 0, given: Names | None = None
    ) -> None:
        self.draw, self.here, self.depth, self.given = draw, here, depth, given or {}

    def __getitem__(self, symbol: str) -> str:
        if symbol in self.given:
            return self.given[symbol]
        here = self.here
        if symbol.startswith("other_"):
            here = ACTIVITY if here is PROFILE else PROFILE
        choices = here[symbol.removeprefix("other_")]
        if self.depth >= _DEEPEST:
            choices = [choice for choice in choices if "{" not in choice] or choices
        choice = self.draw(st.sampled_from(choices))
        return choice.format_map(_Writer(self.draw, here, self.depth + 1))

    def write(self, template: str, **given: str) -> str:
        """Write a template; what is given stands for more symbols of it."""
        return template.format_map(_Writer(self.draw, self.here, self.depth, given))


@st.composite
def sentences(draw: Callable[..., Any], *templates: str) -> Example:
    """Code in the form of one of the templates, about profiles or activities."""
    return Example(_writer(draw).write(draw(st.sampled_from(templates))))


@st.composite
def ties(draw: Callable[..., Any]) -> Example:
    """Model objects in an order that leaves some of them equal."""
    writer = _writer(draw)
    keys = draw(_some_of(_names(writer, "field")))
    order = ", ".join(draw(_ordered(key)) for key in keys)
    cut = writer["slice"]
    return Example(
        f"list({writer['source']}{writer['filters']}.order_by({order}){cut})",
        keys=tuple(keys),
        sliced=bool(cut),
    )


@st.composite
def values(draw: Callable[..., Any], *templates: str, joined: bool = False) -> Example:
    """Templates for values() and its kin, over fields and annotations, with `joined` also over
    fields that repeat rows.

    {columns} says both; or {annotated} the annotations, and {names} both; {order} is by all, and
    {key} the same each time.
    """
    writer = _writer(draw)
    fields = draw(_some_of(_names(writer, "field", *["joined"] * joined)))
    made = {name: writer.write("{scalar}") for name in draw(st.sampled_from(["", "", "x", "xy"]))}
    annotations = [f"{name}={code}" for name, code in made.items()]
    names = draw(st.permutations([*fields, *made]))
    return Example(
        writer.write(
            draw(st.sampled_from(templates)),
            columns=", ".join([*map(repr, fields), *annotations]),
            annotated=f".annotate({', '.join(annotations)})" if made else "",
            key=writer["key"],
            names=", ".join(map(repr, names)),
            order=", ".join(draw(_ordered(name)) for name in names),
        )
    )


@st.composite
def heads(draw: Callable[..., Any], *templates: str) -> Example:
    """Templates for distinct(…): {order} begins with the fields of {heads}."""
    writer = _writer(draw)
    fields = draw(_some_of(_names(writer, "field", "part")))
    order = [draw(st.sampled_from([name, f"-{name}"])) for name in fields]
    return Example(
        writer.write(
            draw(st.sampled_from(templates)),
            heads=", ".join(map(repr, fields)),
            order=", ".join(map(repr, order)),
        )
    )


def _writer(draw: Callable[..., Any]) -> _Writer:
    return _Writer(draw, draw(st.sampled_from([PROFILE, ACTIVITY])))


def _names(writer: _Writer, *symbols: str) -> list[str]:
    """What both order and selection can name."""
    return sorted({name.strip('"-') for symbol in symbols for name in writer.here[symbol]})


def _some_of(names: list[str]) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(names), min_size=1, max_size=3, unique=True)


def _ordered(name: str) -> st.SearchStrategy[str]:
    return st.sampled_from(
        [
            *(repr(name), repr(f"-{name}")),
            *(f"F({name!r}).asc(nulls_first=True)", f"F({name!r}).desc(nulls_last=True)"),
        ]
    )
