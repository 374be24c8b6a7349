"""What the trigger of the change log costs the primary, for benchmarks.sync."""

import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from psycopg.sql import SQL, Identifier

from benchmarks.harness import Way, empty_tables, timed
from benchmarks.sync_accounts import execute, fill, print_line, print_rates, sample

__all__ = ["trigger"]

_TRANSACTIONS = 2_000
_PART = 250  # of them that make one ratio
_WARM = 20
_STATEMENT = 100_000  # rows


def trigger(users: int, runs: int) -> None:
    """Writes on the primary with the trigger over the same without."""
    fill(users)
    _tidy()
    few = sample(min(users, _TRANSACTIONS * runs))
    _compare_single_rows("UPDATE of one row", _by_statement, few)
    _compare_single_rows("update() of one row in atomic()", _by_django, few)
    many = sample(min(users, _STATEMENT))
    on, off = (
        Way("", partial(_update_all, many), before=partial(_set_trigger, many[:_WARM], on=on))
        for on in (True, False)
    )
    name = f"UPDATE of {len(many):,} rows, with trigger / without"
    print_rates(name, on, off, len(many), runs=runs, goal=0.6, prepare=_tidy)
    _tidy()


def _compare_single_rows(name: str, update: Callable[[str, Any], object], keys: list) -> None:
    """Update one row in a transaction, by turns with and without the trigger; print the ratio.

    On two connections, as whoever switches triggers off must make all plans anew.
    """
    with _unlogged_alias() as unlogged:
        seconds: dict[str, list[float]] = {"default": [], unlogged: []}
        for number, key in enumerate(keys):
            for alias in sorted(seconds, reverse=bool(number % 2)):
                seconds[alias].append(timed(partial(update, alias, key), collect=False))
    pairs = list(zip(seconds["default"], seconds[unlogged], strict=True))
    parts = [pairs[start : start + _PART] for start in range(_WARM, len(pairs), _PART)]
    medians = [tuple(map(statistics.median, zip(*part, strict=True))) for part in parts]
    rates = " / ".join(f"{1 / statistics.median(way):,.0f}" for way in zip(*medians, strict=True))
    name = f"{name}, with trigger / without"
    print_line(name, [off / on for on, off in medians], "at least 0.93", f"  {rates} rows/s")


@contextmanager
def _unlogged_alias() -> Iterator[str]:
    """A second connection to the primary, on which no trigger fires but those of foreign keys."""
    from django.db import connections

    from sharding.moves.servers import rows

    internal = (
        "SELECT tgname FROM pg_trigger WHERE tgrelid = 'users_user'::regclass AND tgisinternal"
    )
    for (trigger,) in rows("default", internal):
        enable = SQL("ALTER TABLE users_user ENABLE ALWAYS TRIGGER {}")
        execute("default", enable.format(Identifier(trigger)).as_string())
    connections["unlogged"] = connections["default"].copy("unlogged")
    try:
        execute("unlogged", "SET session_replication_role = replica")
        yield "unlogged"
    finally:
        connections["unlogged"].close()
        del connections["unlogged"]


def _by_statement(alias: str, key: Any) -> None:
    from django.db import connections

    with connections[alias].cursor() as cursor:
        cursor.execute("UPDATE users_user SET is_staff = NOT is_staff WHERE id = %s", [key])


def _by_django(alias: str, key: Any) -> None:
    from django.db import models, transaction

    from users.models import User

    with transaction.atomic(using=alias):
        other = models.Case(models.When(is_staff=True, then=False), default=True)
        User.objects.using(alias).filter(pk=key).update(is_staff=other)


def _set_trigger(keys: Sequence[Any] = (), *, on: bool) -> None:
    execute("default", f"ALTER TABLE users_user {'ENABLE' if on else 'DISABLE'} TRIGGER USER")
    for key in keys:  # as plans must be made anew after that
        _update_all([key])


def _tidy() -> None:
    from users.models import UserChange

    _set_trigger(on=True)
    execute("default", "VACUUM users_user")
    empty_tables(UserChange)


def _update_all(keys: Sequence[Any]) -> None:
    statement = "UPDATE users_user SET is_staff = NOT is_staff WHERE id = ANY(%s)"
    execute("default", statement, [keys])
