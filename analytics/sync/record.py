"""The record that each run leaves behind."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import timedelta

from django.utils import timezone

from analytics.models import SyncRun
from analytics.sync.described import Source
from analytics.sync.errors import Overtaken, SyncFailed, naming
from analytics.sync.result import SyncResult
from analytics.sync.status import lag
from sharding import conf
from sharding.errors import DatabaseUnavailable

__all__ = ["KEPT", "Run", "recorded"]

KEPT = timedelta(days=90)  # one run a minute would otherwise leave millions of records a year


class Run:
    """A sync of one source: what it did so far, and what came of it."""

    def __init__(self, mode: str, source: Source) -> None:
        self.source = source
        self.result = SyncResult()
        self.error = ""
        self._row = SyncRun(mode=mode, source=source.name)

    def add(self, result: SyncResult) -> None:
        """Count one batch more."""
        self.result += result

    def store(self) -> None:
        """Write the record; drop those that are old. Raises SyncFailed, DatabaseUnavailable."""
        for name, count in asdict(self.result).items():
            setattr(self._row, name, count)
        self._row.error = self.error
        if not self.error:
            with suppress(SyncFailed, DatabaseUnavailable):
                self._row.lag = lag(self.source)
        self._row.finished_at = now = timezone.now()
        with naming(conf.analytics()):
            self._row.save()
            SyncRun.objects.filter(started_at__lt=now - KEPT).delete()


@contextmanager
def recorded(mode: str, source: Source) -> Iterator[Run]:
    """Store a SyncRun at the end of the block, with the error that ended it, if any.

    A run that found another at work before it did anything leaves no record. Raises what the block
    raises, and SyncFailed or DatabaseUnavailable when analytics cannot store the record.
    """
    run = Run(mode, source)
    try:
        yield run
    except BaseException as error:
        if not isinstance(error, Overtaken) or run.result != SyncResult():
            run.error = _reason(error)
            with suppress(SyncFailed, DatabaseUnavailable):  # must not hide why the sync failed
                run.store()
        raise
    run.store()


def _reason(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt | SystemExit):
        return "Interrupted; the next run goes on from there."
    return str(error) or type(error).__name__
