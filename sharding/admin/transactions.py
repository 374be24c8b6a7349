"""One change on several databases: the shards' rows, and what the admin's log says of them."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager

from django.db import connections, transaction

from sharding import conf
from sharding.errors import DatabaseUnavailable

__all__ = ["OutcomeUnknown", "logged", "reachable_shard"]


class OutcomeUnknown(DatabaseUnavailable):
    """A database was lost while the work was committed: part of it may be done."""


@contextmanager
def logged(aliases: Iterable[str]) -> Iterator[None]:
    """Run the block in a transaction on each of these databases, and on the primary around them.

    The log is committed last: it may lack what was done, and never tells what was not. Raises
    DatabaseUnavailable with nothing done, or OutcomeUnknown.
    """
    ran = False
    try:
        with transaction.atomic(using=conf.primary()), ExitStack() as stack:
            for alias in sorted(aliases):
                stack.enter_context(transaction.atomic(using=alias))
            yield
            ran = True
    except DatabaseUnavailable as error:
        if not ran:
            raise
        raise OutcomeUnknown(str(error), alias=error.alias) from error


def reachable_shard() -> str:
    """Return any shard that answers, for work that will turn out to write nothing."""
    for alias in conf.shards():
        try:
            connections[alias].ensure_connection()
        except DatabaseUnavailable as error:
            unavailable = error
        else:
            return alias
    raise unavailable
