"""What every step of a move needs: a question to a server, and waiting for something to be true."""

from collections.abc import Callable, Sequence
from time import monotonic, sleep
from typing import Any, TypeVar

from django.db import connections
from psycopg.conninfo import make_conninfo
from psycopg.sql import Composable

from sharding import conf
from sharding.errors import MoveFailed

__all__ = ["execute", "one_lifetime", "replication_address", "rows", "value", "wait_for"]

_Result = TypeVar("_Result")

_PAUSE = 0.005  # seconds
_MARGIN = 0.1  # seconds: between looking at the map and using it, a little time passes


def execute(alias: str, statement: str | Composable, parameters: Sequence[Any] = ()) -> int:
    """Run a statement by itself; return the number of rows that it changed."""
    with connections[alias].cursor() as cursor:
        cursor.execute(_text(statement), parameters or None)
        return cursor.rowcount


def rows(alias: str, query: str | Composable, parameters: Sequence[Any] = ()) -> list[Any]:
    """Return the rows of a query."""
    with connections[alias].cursor() as cursor:
        cursor.execute(_text(query), parameters or None)
        return cursor.fetchall()


def value(alias: str, query: str | Composable, parameters: Sequence[Any] = ()) -> Any:
    """Return the first column of the first row of a query, None without rows."""
    found = rows(alias, query, parameters)
    return found[0][0] if found else None


def wait_for(
    condition: Callable[[], _Result], what: str, *, timeout: float, pause: float = _PAUSE
) -> _Result:
    """Return what the condition returns as soon as that is true. Raises MoveFailed."""
    deadline = monotonic() + timeout
    while not (result := condition()):
        if monotonic() > deadline:
            raise MoveFailed(f"Waited {timeout:g} seconds for {what}.")
        sleep(pause)
    return result


def one_lifetime(
    *, since: float, handing_over_since: float | None = None, margin: float = _MARGIN
) -> None:
    """Wait until every process knows the map as it was at a time of the monotonic clock.

    Maps that were read after `handing_over_since` say that slots change hands, and live shorter.
    """
    over = since + conf.map_lifetime()
    if handing_over_since is not None:
        last_long_one = handing_over_since + conf.map_lifetime()
        over = min(over, max(since + conf.map_lifetime(handing_over=True), last_long_one))
    sleep(max(over + margin - monotonic(), 0))


def replication_address(alias: str) -> str:
    """How the other servers reach a shard's: DATABASE_SHARD_<n>_REPLICATION_URL, or as we do."""
    given = connections[alias].settings_dict
    if address := given.get("REPLICATION"):
        return make_conninfo("", **address)
    names = {"HOST": "host", "PORT": "port", "NAME": "dbname", "USER": "user"}
    address = {key: given[name] for name, key in names.items() if given[name]}
    if given["PASSWORD"]:
        address["password"] = given["PASSWORD"]
    kept = {key: v for key, v in given["OPTIONS"].items() if key.startswith("ssl")}
    return make_conninfo("", **address, **kept)


def _text(statement: str | Composable) -> str:
    return statement if isinstance(statement, str) else statement.as_string()
