"""A sync that somebody asks for on a page: it goes on when the page has been answered."""

import logging
from dataclasses import dataclass, field
from threading import Event, Thread, main_thread

from django.db import connections

from analytics.sync.described import Source, sources
from analytics.sync.errors import Overtaken, SyncFailed
from analytics.sync.lock import AnotherSync, only_sync
from analytics.sync.record import recorded
from analytics.sync.result import SyncResult
from analytics.sync.run import sync_source
from sharding.errors import DatabaseUnavailable

__all__ = ["Outcome", "sync_now"]

logger = logging.getLogger(__name__)


@dataclass
class Outcome:
    """What a sync did so far; nothing where another was `running_already`. `failed`: sources."""

    result: SyncResult = field(default_factory=SyncResult)
    failed: list[str] = field(default_factory=list)
    running_already: bool = False
    finished: Event = field(default_factory=Event)


def sync_now(*, wait: float) -> Outcome:
    """Start a sync of every source, and return what it did within `wait` seconds.

    Only one runs at a time, in all processes. One that is still at work when its process is to end
    stops after the batch in hand; the next sync goes on from there.
    """
    outcome = Outcome()
    Thread(target=_run, args=[outcome], name="sync-now").start()
    outcome.finished.wait(wait)
    return outcome


def _run(outcome: Outcome) -> None:
    try:
        with only_sync():
            for source in sources():
                _sync(source, outcome)
    except AnotherSync:
        outcome.running_already = True
    except (SyncFailed, DatabaseUnavailable) as error:
        logger.error("Sync asked for in the admin: %s", error)
        outcome.failed.append("analytics")
    finally:
        connections.close_all()  # this thread's own
        outcome.finished.set()


def _sync(source: Source, outcome: Outcome) -> None:
    try:
        with recorded("incremental", source) as run:
            for progress in sync_source(source):
                run.add(progress.result)
                outcome.result += progress.result
                if not main_thread().is_alive():
                    return
    except Overtaken:
        outcome.running_already = True
    except (SyncFailed, DatabaseUnavailable) as error:
        logger.error("Sync asked for in the admin: %s: %s", source.name, error)
        outcome.failed.append(source.name)
