"""Two writers in a process of their own, one to users that move and one to others. Part of
benchmarks.moves.

In the mover's process they would wait for its Python too, as no user does.
"""

import json
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import django

__all__ = ["Load", "key_of"]

_PAUSE = 0.005  # seconds between the writes of one writer


@dataclass
class Load:
    """How long each write took, in seconds, and the errors, of all the times that it ran."""

    moved: list[float] = field(default_factory=list)
    others: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @contextmanager
    def running(self, moved: Sequence[int], others: Sequence[int]) -> Iterator[None]:
        """Write to users of these slots during the block."""
        slots = json.dumps([list(moved), list(others)])
        writers = subprocess.Popen(
            [sys.executable, "-c", "from benchmarks.writers import main; main()", slots],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert writers.stdout
        writers.stdout.readline()  # they have begun
        try:
            yield
        finally:
            waits, other_waits, errors = json.loads(writers.communicate()[0])
            self.moved += waits
            self.others += other_waits
            self.errors += errors


def key_of(slot: int) -> uuid.UUID:
    """The id of a new user of a slot."""
    return uuid.UUID(f"{slot:08x}-{uuid.uuid4().hex[8:]}")


def main() -> None:
    """Write until the input ends; then print what was seen."""
    django.setup()
    stop = threading.Event()
    errors: list[str] = []
    waits: list[list[float]] = [[], []]
    threads = [
        threading.Thread(target=_write, args=[slots, waits[number], errors, stop])
        for number, slots in enumerate(json.loads(sys.argv[1]))
    ]
    for thread in threads:
        thread.start()
    while not all(waits):
        time.sleep(_PAUSE)
    print(flush=True)
    sys.stdin.read()
    stop.set()
    for thread in threads:
        thread.join()
    print(json.dumps([*waits, errors]))


def _write(
    slots: Sequence[int], waits: list[float], errors: list[str], stop: threading.Event
) -> None:
    from django.db import connections

    from users.models import Profile

    profiles = [Profile(user_id=key_of(slot)) for slot in slots]
    for profile in profiles:
        profile.save()
    number = 0
    while not stop.is_set():
        number += 1
        started = time.monotonic()
        try:
            profiles[number % len(profiles)].save()
        except Exception as error:
            errors.append(f"{type(error).__name__}: {error}")
        waits.append(time.monotonic() - started)
        stop.wait(_PAUSE)
    connections.close_all()
