"""What every benchmark needs: servers of its own, runs taken in turn, medians and their ratio.

A benchmark prints a ratio against a baseline that is measured in the same run, on the same servers:
a time alone says more about the machine than about the code.
"""

import contextlib
import gc
import os
import secrets
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import django
import environ
from psycopg import sql

from config.databases import PRIMARY, any_url
from config.embedded import Cluster

if TYPE_CHECKING:  # models cannot be imported before Django is set up
    from django.db.models import Model

__all__ = ["Ratio", "Way", "benchmark_databases", "compare", "empty_tables", "timed"]

_FOLDER = Path(__file__).resolve().parent.parent / "var"
_PREFIX = "benchmark-"  # and the number of the process


@contextlib.contextmanager
def benchmark_databases(*, shards: int = 3) -> Iterator[Cluster]:
    """Run durable servers with all tables, and set Django up to use them: import models inside.

    The servers are deleted at the end. Exits where the environment names servers: benchmarks empty
    tables, and must never reach those.
    """
    _require_no_servers()
    _destroy_leftovers()
    aliases = ("default", "analytics", *(f"shard_{number + 1}" for number in range(shards)))
    cluster = Cluster(_FOLDER / f"{_PREFIX}{os.getpid()}", aliases)
    try:
        cluster.start()
        _set_up_django(cluster)
        yield cluster
    finally:
        _disconnect()
        cluster.destroy()


def empty_tables(*models: "type[Model]") -> None:
    """Empty the models' tables, and those that refer to them, wherever they are.

    Each server finishes its background work too, so that one run does not pay for another's.
    """
    from django.db import connections

    from sharding import conf
    from sharding.placement import SHARDS, place

    places = {model: place(model) for model in models}
    for alias in connections:
        wheres = (alias, SHARDS) if alias in conf.shards() else (alias,)
        tables = [model._meta.db_table for model, where in places.items() if where in wheres]
        with connections[alias].cursor() as cursor:
            if tables:
                cursor.execute(_truncate(tables))
            cursor.execute("CHECKPOINT")


@dataclass(frozen=True)
class Way:
    """One way of doing the work: what to call it in the table, and the function to time.

    `before` sets it up, untimed, each time.
    """

    name: str
    run: Callable[[], object]
    before: Callable[[], object] = lambda: None


@dataclass(frozen=True)
class Ratio:
    """The seconds of each run of two ways; the ratio is that of their medians."""

    baseline: Way
    candidate: Way
    baseline_seconds: Sequence[float]
    candidate_seconds: Sequence[float]

    @property
    def value(self) -> float:
        """How many times as fast as the baseline the candidate is."""
        return statistics.median(self.baseline_seconds) / statistics.median(self.candidate_seconds)

    def table(self, *, amount: int, unit: str) -> str:
        """Both rates for `amount` of `unit` a run, and the ratio, as lines to print."""
        width = max(len(self.baseline.name), len(self.candidate.name))
        lines = [
            _rate(self.baseline.name, self.baseline_seconds, amount, unit, width),
            _rate(self.candidate.name, self.candidate_seconds, amount, unit, width),
            f"{'ratio':{width}}  {self.value:10.2f}",
        ]
        return "\n".join(lines)


def compare(
    *, baseline: Way, candidate: Way, runs: int = 5, prepare: Callable[[], object] = lambda: None
) -> Ratio:
    """Time both ways `runs` times in turn, each after an untimed `prepare()`.

    One run of each before that is not counted: it fills caches and opens connections.
    """
    seconds: dict[Way, list[float]] = {baseline: [], candidate: []}
    for number in range(runs + 1):
        # Each goes first every other time: what slows the machine down must not favour one.
        for way in (baseline, candidate) if number % 2 else (candidate, baseline):
            prepare()
            way.before()
            taken = timed(way.run)
            if number:
                seconds[way].append(taken)
    return Ratio(baseline, candidate, seconds[baseline], seconds[candidate])


def timed(run: Callable[[], object], *, collect: bool = True) -> float:
    """Return the seconds that it takes, from a tidy heap unless it is over in a moment."""
    if collect:
        gc.collect()
    start = perf_counter()
    run()
    return perf_counter() - start


def _rate(name: str, seconds: Sequence[float], amount: int, unit: str, width: int) -> str:
    median = statistics.median(seconds)
    spread = f"{amount / max(seconds):,.0f} to {amount / min(seconds):,.0f}"
    return f"{name:{width}}  {amount / median:10,.0f} {unit}/s  ({spread}, {len(seconds)} runs)"


def _require_no_servers() -> None:
    environ.Env.read_env(str(_FOLDER.parent / ".env"))
    if any_url(os.environ):
        raise SystemExit("Benchmarks run on servers of their own: unset the DATABASE_*_URLs first.")


def _set_up_django(cluster: Cluster) -> None:
    for alias in cluster.aliases:
        role = "primary" if alias == PRIMARY else alias
        os.environ[f"DATABASE_{role.upper()}_URL"] = cluster.url(alias)
    # With DEBUG on, every query would be remembered.
    os.environ.update(DEBUG="off", SECRET_KEY=secrets.token_hex(), ALLOWED_HOSTS="localhost")
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    django.setup()
    from django.core.management import call_command

    call_command("migrate", verbosity=0)


def _disconnect() -> None:
    from sharding.databases import DatabaseManager

    DatabaseManager().disconnect()


def _truncate(tables: Sequence[str]) -> str:
    # Without triggers: they would log the change, or refuse it.
    names = sql.SQL(", ").join(map(sql.Identifier, tables))
    statement = sql.SQL(
        "SET session_replication_role = replica; TRUNCATE {} CASCADE;RESET session_replication_role"
    )
    return statement.format(names).as_string()


def _destroy_leftovers() -> None:
    """Delete the servers of benchmarks that were killed."""
    for folder in _FOLDER.glob(f"{_PREFIX}*"):
        if not Path(f"/proc/{folder.name.removeprefix(_PREFIX)}").exists():
            Cluster(folder).destroy()
