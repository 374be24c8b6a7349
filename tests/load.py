"""Requests at a steady rate, whether or not the earlier ones have been answered."""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import cycle
from threading import Event, Lock, Thread
from typing import Any

__all__ = ["Load", "Probe", "Sent", "percentile"]


@dataclass(frozen=True)
class Probe:
    """A kind of request: what sends one and says whether it was answered, and what that needs.

    It is answered while of each group in `needs` one database is up.
    """

    name: str
    send: Callable[[], bool]
    needs: tuple[frozenset[str], ...] = ()

    def works_without(self, *down: str) -> bool:
        return all(group - set(down) for group in self.needs)


@dataclass(frozen=True)
class Sent:
    """One request: when it was sent, how long it took, and how it ended."""

    probe: Probe
    at: float
    seconds: float
    answered: bool


class Load:
    """Sends the probes in turn, `rate` a second, inside its block."""

    def __init__(self, probes: Sequence[Probe], *, rate: float, threads: int = 32) -> None:
        self.sent: list[Sent] = []
        self._probes: Iterator[Probe] = cycle(probes)
        self._pause = 1 / rate
        self._pool = ThreadPoolExecutor(threads)
        self._end = Event()
        self._lock = Lock()
        self._thread = Thread(target=self._run)

    def __enter__(self) -> "Load":
        self._thread.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self._end.set()
        self._thread.join()
        self._pool.shutdown()

    def between(self, start: float, end: float) -> list[Sent]:
        """The requests that were sent in that time."""
        with self._lock:
            return [sent for sent in self.sent if start <= sent.at < end]

    def _run(self) -> None:
        due = time.monotonic()
        while not self._end.wait(max(0.0, due - time.monotonic())):
            self._pool.submit(self._send, next(self._probes))
            due += self._pause

    def _send(self, probe: Probe) -> None:
        start = time.monotonic()
        answered = probe.send()
        sent = Sent(probe, start, time.monotonic() - start, answered)
        with self._lock:
            self.sent.append(sent)


def percentile(values: Sequence[float], share: float) -> float:
    """The value that this share of the values does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
