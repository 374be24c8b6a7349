"""The record that each run leaves behind."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict

from django.utils import timezone

from analytics.models import SyncRun
from analytics.sync.errors import SyncAlreadyRunning, SyncFailed, naming
from analytics.sync.result import SyncResult
from sharding import conf
from sharding.errors import DatabaseUnavailable

__all__ = ["recorded"]


def recorded(mode: str, sync: Callable[[], SyncResult]) -> SyncResult:
    """Run a sync and store a SyncRun, with the error when it failed; return what it did.

    A sync that found another running did nothing and leaves no record. Raises what the sync
    raises, and SyncFailed or DatabaseUnavailable when analytics cannot store the record.
    """
    run = SyncRun(mode=mode)
    try:
        result = sync()
    except SyncAlreadyRunning:
        raise
    except BaseException as error:  # a signal too
        run.error = str(error) or type(error).__name__
        with suppress(SyncFailed, DatabaseUnavailable):  # must not hide why the sync failed
            _finish(run)
        raise
    for name, count in asdict(result).items():
        setattr(run, name, count)
    _finish(run)
    return result


def _finish(run: SyncRun) -> None:
    run.finished_at = timezone.now()
    with naming(conf.analytics()):
        run.save()
