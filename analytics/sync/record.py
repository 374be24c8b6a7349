"""The record that each run leaves behind."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field

from django.utils import timezone

from analytics.models import SyncRun
from analytics.sync.described import Source
from analytics.sync.errors import Overtaken, SyncFailed, naming
from analytics.sync.result import SyncResult
from analytics.sync.status import lag
from sharding import conf
from sharding.errors import DatabaseUnavailable

__all__ = ["Run", "recorded"]


@dataclass
class Run:
    """What a run did so far."""

    result: SyncResult = field(default_factory=SyncResult)

    def add(self, result: SyncResult) -> None:
        """Count one batch more."""
        self.result += result


@contextmanager
def recorded(mode: str, source: Source) -> Iterator[Run]:
    """Store a SyncRun at the end of the block, with the error that ended it, if any.

    A run that found another at work did nothing and leaves no record. Raises what the block
    raises, and SyncFailed or DatabaseUnavailable when analytics cannot store the record.
    """
    row, run = SyncRun(mode=mode, source=source.name), Run()
    try:
        yield run
    except Overtaken:
        raise
    except BaseException as error:  # a signal too
        row.error = str(error) or type(error).__name__
        with suppress(SyncFailed, DatabaseUnavailable):  # must not hide why the sync failed
            _store(row, run)
        raise
    with suppress(SyncFailed, DatabaseUnavailable):
        row.lag = lag(source)
    _store(row, run)


def _store(row: SyncRun, run: Run) -> None:
    for name, count in asdict(run.result).items():
        setattr(row, name, count)
    row.finished_at = timezone.now()
    with naming(conf.analytics()):
        row.save()
