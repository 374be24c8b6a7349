"""Syncing on and on: what is committed at a source stands in analytics a moment later."""

import logging
from collections.abc import Iterable, Iterator
from contextlib import suppress
from queue import Empty, SimpleQueue

from django.db import connections

from analytics.sync.described import Source
from analytics.sync.errors import Overtaken, SyncFailed
from analytics.sync.record import Run
from analytics.sync.result import Progress
from analytics.sync.run import sync_source
from sharding import conf
from sharding.errors import DatabaseUnavailable

__all__ = ["Stop", "follow"]

logger = logging.getLogger(__name__)


class Stop:
    """A request to stop that a signal's handler may make, even in the middle of `wait`.

    An Event's would wait there for the lock that the code which it interrupted holds.
    """

    def __init__(self) -> None:
        self._requests: SimpleQueue[None] = SimpleQueue()
        self.requested = False

    def request(self) -> None:
        """Stop as soon as the batch in hand is done."""
        self.requested = True
        self._requests.put(None)

    def wait(self, seconds: float) -> None:
        """Return after so many seconds, or when a stop is requested."""
        with suppress(Empty):
            self._requests.get(timeout=seconds)


def follow(sources: Iterable[Source], *, interval: float, batch_size: int, stop: Stop) -> None:
    """Sync again and again until a stop is requested, finishing the batch in hand; pause `interval`
    seconds where nothing is to do.

    The sources take turns, a batch each. One that fails is logged once, leaves a record and is
    tried again; the others go on.
    """
    followed = [_Followed(source, batch_size) for source in sources]
    while not stop.requested:
        busy = False
        for one in followed:
            busy |= one.do_batch()
            if stop.requested:
                break
        if not busy:
            stop.wait(interval)
    for one in followed:
        one.store()


class _Followed:
    """A source, the sync of it that is under way, and what it fails with."""

    def __init__(self, source: Source, batch_size: int) -> None:
        self.source = source
        self.batch_size = batch_size
        self.batches: Iterator[Progress] = iter(())
        self.run = Run("follow", source)
        self.trouble = ""

    def do_batch(self) -> bool:
        """Do one batch, and say whether there was anything to do."""
        try:
            progress = self._next()
        except Overtaken:
            return False
        except (SyncFailed, DatabaseUnavailable) as error:
            self._fail(str(error))
            return False
        if self.trouble:
            logger.warning("%s: works again.", self.source.name)
            self.trouble = ""
        if progress is None:
            return False
        if progress.news:
            logger.warning("%s: %s", self.source.name, progress.where)
        self.run.add(progress.result)
        return True

    def _next(self) -> Progress | None:
        if (progress := next(self.batches, None)) is None:
            self.batches = sync_source(self.source, batch_size=self.batch_size)
            progress = next(self.batches, None)
        return progress

    def _fail(self, trouble: str) -> None:
        if not self.trouble:
            logger.warning("%s: %s", self.source.name, trouble)
            self.trouble = trouble
            self.store()
            self.run = Run("follow", self.source)
        for alias in (self.source.alias, conf.analytics()):
            connections[alias].close_if_unusable_or_obsolete()

    def store(self) -> None:
        """Write the record of what was done; analytics may be what fails."""
        self.run.error = self.trouble
        with suppress(SyncFailed, DatabaseUnavailable):
            self.run.store()
