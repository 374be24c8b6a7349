"""For tests of code that uses sharded models: pin down which shards it touches."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from django.db import connections
from django.test import TestCase
from django.test.utils import CaptureQueriesContext

from sharding import conf
from sharding.signals import fanned_out

__all__ = ["ShardedTestCase"]


class ShardedTestCase(TestCase):
    """A TestCase that may use every database."""

    databases = "__all__"

    @contextmanager
    def assertShards(self, *aliases: str) -> Iterator[None]:
        """Fail unless the block asks exactly these shards; none at all without arguments."""
        with ExitStack() as stack:
            captured = {
                alias: stack.enter_context(CaptureQueriesContext(connections[alias]))
                for alias in conf.shards()
            }
            yield
        asked = {alias: [q["sql"] for q in queries] for alias, queries in captured.items()}
        touched = [alias for alias, statements in asked.items() if statements]
        if set(touched) != set(aliases):
            listing = "\n".join(f"  {a}: {sql}" for a in touched for sql in asked[a])
            self.fail(
                f"Expected queries on {', '.join(aliases) or 'no shard'}; there were some on "
                f"{', '.join(touched) or 'none'}:\n{listing}"
            )

    @contextmanager
    def assertFanout(self, times: int) -> Iterator[None]:
        """Fail unless the block sends exactly so many queries to several shards."""
        seen: list[str] = []

        def note(sender: Any, aliases: tuple[str, ...], **kwargs: Any) -> None:
            seen.append(f"  {sender._meta.label} on {', '.join(aliases)}")

        fanned_out.connect(note)
        try:
            yield
        finally:
            fanned_out.disconnect(note)
        if len(seen) != times:
            listing = "\n".join(seen)
            self.fail(f"Expected {times} fan-outs; there were {len(seen)}:\n{listing}")
