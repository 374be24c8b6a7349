"""The steps of a batch, to do something before or after one: fail, exit, let another one run."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

from django.db.backends.base.base import BaseDatabaseWrapper

from analytics.sync.turn import Turn

__all__ = ["APART", "POINTS", "STEPS", "Point", "at", "point_name"]

# In their order. A commit is that of the transaction in which the step before it was.
STEPS = ("claim", "claim commit", "take_over", "take_over commit", "finish", "finish commit")
Point = tuple[str, str]  # "before" or "after", and the step
POINTS: list[Point] = [(when, step) for step in STEPS for when in ("before", "after")]
APART: list[Point] = [*POINTS[::2], POINTS[-1]]  # as nothing happens after one and before the next


def point_name(point: Point) -> str:
    return " ".join(point)


@contextmanager
def at(point: Point, action: Callable[[], Any], *, turn: int = 1) -> Iterator[None]:
    """Call `action` once, before or after a step of the turn-th batch of this thread."""
    hooks = _Hooks(point, action, turn)
    with ExitStack() as stack:
        for name in ("claim", "take_over", "finish"):
            wrapped = hooks.around_step(name, getattr(Turn, name))
            stack.enter_context(mock.patch.object(Turn, name, wrapped))
        commit = hooks.around_commit(BaseDatabaseWrapper.commit)
        stack.enter_context(mock.patch.object(BaseDatabaseWrapper, "commit", commit))
        yield


class _Hooks:
    def __init__(self, point: Point, action: Callable[[], Any], turn: int) -> None:
        self.point, self.action, self.turn = point, action, turn
        self.thread = threading.get_ident()
        self.claims = 0
        self.last = ""

    def around_step(self, name: str, step: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any) -> None:
            if threading.get_ident() != self.thread:
                return step(*args)
            self.claims += name == "claim"
            self._reach("before", name)
            step(*args)
            self.last = name
            self._reach("after", name)
            return None

        return wrapped

    def around_commit(self, commit: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any) -> None:
            if threading.get_ident() != self.thread or not self.last:
                return commit(*args)
            name, self.last = f"{self.last} commit", ""
            self._reach("before", name)
            commit(*args)
            self._reach("after", name)
            return None

        return wrapped

    def _reach(self, when: str, step: str) -> None:
        if (when, step) == self.point and self.claims == self.turn:
            self.turn = 0  # once
            self.action()
