"""Two writers, one to users that move and one to others, each in a process of its own. Part of
benchmarks.moves.

In one process they would wait for each other's Python, and for the mover's.
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
        writers = [_start(slots) for slots in (moved, others)]
        for writer in writers:
            assert writer.stdout
            writer.stdout.readline()  # it has begun
        try:
            yield
        finally:
            for writer, waits in zip(writers, (self.moved, self.others), strict=True):
                seconds, errors = json.loads(writer.communicate()[0])
                waits += seconds
                self.errors += errors


def key_of(slot: int) -> uuid.UUID:
    """The id of a new user of a slot."""
    return uuid.UUID(f"{slot:08x}-{uuid.uuid4().hex[8:]}")


def main() -> None:
    """Write until the input ends; then print what was seen."""
    django.setup()
    stop = threading.Event()
    waits: list[float] = []
    errors: list[str] = []
    slots = [int(slot) for slot in sys.argv[1:]]
    thread = threading.Thread(target=_write, args=[slots, waits, errors, stop])
    thread.start()
    while not waits:
        time.sleep(_PAUSE)
    print(flush=True)
    sys.stdin.read()
    stop.set()
    thread.join()
    print(json.dumps([waits, errors]))


def _start(slots: Sequence[int]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "benchmarks.writers", *map(str, slots)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


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


if __name__ == "__main__":
    main()
