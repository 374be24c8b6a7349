"""The long form of the tests of moves: SOAK=1, for SOAK_MINUTES (5) each."""

import os
import random
from collections.abc import Iterator, Sequence
from time import monotonic
from typing import TypeVar

__all__ = ["SOAK", "rounds"]

SOAK = bool(os.environ.get("SOAK"))
_SECONDS = 60 * float(os.environ.get("SOAK_MINUTES", "5"))

_Case = TypeVar("_Case")


def rounds(every: Sequence[_Case], *, usually: int = 1) -> Iterator[_Case]:
    """Yield some of them, each time others; with SOAK all, in any order, again and again."""
    if not SOAK:
        yield from random.sample(every, usually)
        return
    end = monotonic() + _SECONDS
    while True:
        for case in random.sample(every, len(every)):
            if monotonic() > end:
                return
            yield case
