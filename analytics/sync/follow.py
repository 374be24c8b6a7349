"""Syncing on and on: what is committed at a source stands in analytics a moment later."""

import logging
from collections.abc import Iterable
from contextlib import ExitStack
from threading import Event

from django.db import connections

from analytics.sync.described import Source
from analytics.sync.errors import Overtaken, ReconcileNeeded, SyncFailed
from analytics.sync.record import Run, recorded
from analytics.sync.run import sync_log_once, sync_source
from sharding import conf
from sharding.errors import DatabaseUnavailable

__all__ = ["follow"]

logger = logging.getLogger(__name__)


def follow(sources: Iterable[Source], *, interval: float, batch_size: int, stop: Event) -> None:
    """Apply the logs until `stop` is set, finishing the batch in hand; pause `interval` seconds
    where all of them are empty.

    A source that fails is logged once and tried again; the others go on.
    """
    with ExitStack() as stack:
        runs = {source: stack.enter_context(recorded("follow", source)) for source in sources}
        failing: dict[Source, str] = {}
        while not stop.is_set():
            busy = False
            for source, run in runs.items():
                busy |= _turn(source, run, batch_size, failing)
                if stop.is_set():
                    break
            if not busy:
                stop.wait(interval)


def _turn(source: Source, run: Run, batch_size: int, failing: dict[Source, str]) -> bool:
    """Do one batch; say whether there may be more to do at once."""
    try:
        busy = _batch(source, run, batch_size)
    except Overtaken:
        return False
    except (SyncFailed, DatabaseUnavailable) as error:
        if source not in failing:
            logger.warning("%s: %s", source.name, error)
        failing[source] = str(error)
        for alias in (source.alias, conf.analytics()):
            connections[alias].close_if_unusable_or_obsolete()
        return False
    if failing.pop(source, None):
        logger.warning("%s: works again.", source.name)
    return busy


def _batch(source: Source, run: Run, batch_size: int) -> bool:
    try:
        result = sync_log_once(source, batch_size=batch_size)
    except ReconcileNeeded as needed:
        logger.warning("%s: comparing everything: %s", source.name, needed)
        for progress in sync_source(source, batch_size=batch_size):
            run.add(progress.result)
        return True
    if result is None:
        return False
    run.add(result)
    return True
