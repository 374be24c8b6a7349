"""Planning for size: what 1,000,000,000 users mean for 4 to 500 shards. docs/scale.md explains it.

A simulation, on the functions that the application itself uses (hash, slot map, merge). It needs no
server. `--seed` makes it repeatable, and the other options put in figures of your own.
"""

import argparse
import random
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from math import log, sqrt
from time import perf_counter
from uuid import UUID

from sharding.hashing import SLOTS, slot_for
from sharding.orm.merge import SortTerm, merge_streams
from sharding.slots import SlotMap

__all__ = ["main"]

SHARDS = (4, 8, 16, 32, 64, 100, 128, 200, 250, 333, 500)
PROCESSES = (10, 50, 100, 500, 1000, 5000)
_SAMPLE = 1_000_000  # ids that are really hashed
_DRAWS = 4_000  # fan-outs per row
_PAGE = 20  # rows
_CHECKS = 2  # times a second that a process in use asks for the map's version
_CHECK_BYTES = 200  # the question and its answer, with the headers of TCP
_Z99 = 2.326  # standard deviations from a normal distribution's median to its 99th percentile


def main(arguments: Sequence[str] | None = None) -> None:
    """Print every table."""
    chosen = _parser().parse_args(arguments)
    draw = random.Random(chosen.seed)
    hash_spread(draw)
    weights = users_per_slot(draw, chosen.users)
    rows_per_shard(draw, weights, chosen.rows)
    rows_moved(weights, chosen.rows, chosen.rate)
    map_traffic()
    connections(chosen.pool, chosen.server_pool)
    fan_outs(draw, chosen.median, chosen.slowest)


def hash_spread(draw: random.Random) -> None:
    """Hash real ids, and compare the slots' sizes with those of a fair die."""
    counts = Counter(slot_for(UUID(int=draw.getrandbits(128), version=4)) for _ in range(_SAMPLE))
    fair = _SAMPLE / SLOTS
    chi_square = sum((counts[slot] - fair) ** 2 / fair for slot in range(SLOTS))
    # Of a fair die, 99 of 100 such samples lie within 2.6 standard deviations.
    bound = 2.6 * sqrt(2 * (SLOTS - 1))
    print(f"{_SAMPLE:,} ids hashed: chi-square {chi_square:.0f}; fair: {SLOTS - 1} ± {bound:.0f}\n")


def users_per_slot(draw: random.Random, users: int) -> list[float]:
    """Draw the slots' sizes: binomial, and for so many users as good as normal."""
    mean = users / SLOTS
    return [draw.gauss(mean, sqrt(mean * (1 - 1 / SLOTS))) for _ in range(SLOTS)]


def rows_per_shard(draw: random.Random, users: Sequence[float], rows: float) -> None:
    """How evenly users, and rows of users who differ, are spread.

    A user's rows vary: 1 means that the standard deviation equals the mean, 30 that a few users
    have thousands of times what most have.
    """
    _title(f"Rows per shard, {sum(users):,.0f} users with {rows:g} rows each on average")
    even = _weighed(draw, users, rows, variation=1)
    uneven = _weighed(draw, users, rows, variation=30)
    table = [["shards", "slots", "users, mean", "rows, mean", "fullest / mean", "uneven users"]]
    for number in SHARDS:
        owners = _even(number)
        slots = Counter(owners).values()
        table.append(
            [
                f"{number}",
                f"{min(slots)} to {max(slots)}" if min(slots) != max(slots) else f"{min(slots)}",
                f"{sum(users) / number:,.0f}",
                f"{sum(even) / number:,.0f}",
                f"{_fullest(owners, even):.3f}",
                f"{_fullest(owners, uneven):.3f}",
            ]
        )
    _print(table)


def rows_moved(users: Sequence[float], rows: float, rate: float) -> None:
    """What moves when shards are added: slots, and what `hash % shards` would move instead."""
    _title(f"Rows moved when shards are added, at {rate:,.0f} rows a second and one move at a time")
    table = [["from", "to", "slots", "users", "hours", "share", "by hash % shards"]]
    per_user = rows + 1  # the profile
    for before, after in _growth():
        moved = _fewest_moves(_even(before), after)
        load = sum(users[slot] for slot in moved)
        table.append(
            [
                f"{before}",
                f"{after}",
                f"{len(moved)}",
                f"{load:,.0f}",
                f"{load * per_user / rate / 3600:,.1f}",
                f"{load / sum(users):.1%}",
                f"{1 - 1 / after if after % before else 1 - before / after:.1%}",
            ]
        )
    _print(table)


def map_traffic() -> None:
    """What it costs the primary that every process knows the newest slot map."""
    _title(f"Map traffic: each process asks for the version {_CHECKS} times a second")
    table = [["processes", "queries/s", "KiB/s", "after a change, KiB once"]]
    size = len(str(_even(500))) + SLOTS * 12  # rows of (slot, shard, version) as text
    for number in PROCESSES:
        checks = number * _CHECKS
        table.append(
            [
                f"{number:,}",
                f"{checks:,}",
                f"{checks * _CHECK_BYTES / 1024:,.0f}",
                f"{number * size / 1024:,.0f}",
            ]
        )
    _print(table)


def connections(pool: int, server_pool: int) -> None:
    """How many connections a server, a process and all together have, when pools are full."""
    _title(f"Connections, with pools of {pool}; behind PgBouncer each server has {server_pool}")
    table = [["processes", "per server", "and then", "4 shards", "32 shards", "100", "500 shards"]]
    for number in PROCESSES:
        each = number * pool
        verdict = "fine" if each <= 200 else "possible" if each <= 500 else "PgBouncer"
        totals = [f"{each * (shards + 2):,}" for shards in (4, 32, 100, 500)]
        table.append([f"{number:,}", f"{each:,}", verdict, *totals])
    _print(table)


def fan_outs(draw: random.Random, median: float, slowest: float) -> None:
    """What a query over all shards costs: it waits for the slowest and reads a page from each."""
    _title(
        f"A page of {_PAGE} rows over all shards, each shard {median:g} ms, {slowest:g} ms at p99"
    )
    table = [["shards", "median, ms", "p99, ms", "rows read", "merge, ms", "all up at 99.95 %"]]
    sigma = log(slowest / median) / _Z99
    for number in (1, *SHARDS):
        waits = sorted(
            max(median * draw.lognormvariate(0, sigma) for _ in range(number))
            for _ in range(_DRAWS // 10 if number > 100 else _DRAWS)
        )
        table.append(
            [
                f"{number}",
                f"{statistics.median(waits):.1f}",
                f"{waits[int(len(waits) * 0.99)]:.1f}",
                f"{number * _PAGE:,}",
                f"{_merge(number) * 1000:.2f}",
                f"{0.9995**number:.2%}",
            ]
        )
    _print(table)


def _even(shards: int) -> tuple[str, ...]:
    return SlotMap.even([f"shard_{number + 1}" for number in range(shards)]).owners


def _weighed(
    draw: random.Random, users: Sequence[float], rows: float, *, variation: float
) -> list[float]:
    """The rows of each slot: a sum over so many users that it is as good as normal."""
    return [n * rows * draw.gauss(1, variation / sqrt(n)) for n in users]


def _fullest(owners: Sequence[str], load: Sequence[float]) -> float:
    shards: Counter[str] = Counter()
    for owner, weight in zip(owners, load, strict=True):
        shards[owner] += weight  # type: ignore[assignment]
    return max(shards.values()) / (sum(load) / len(shards))


def _growth() -> Iterable[tuple[int, int]]:
    for before in (4, 16, 64, 100, 250):
        yield before, before + 1
        yield before, before * 2


def _fewest_moves(owners: Sequence[str], after: int) -> list[int]:
    """The slots that leave the fullest shards, until each new one has its share."""
    sizes = Counter(owners)
    floor, moved = SLOTS // after, []
    for _ in range((after - len(sizes)) * floor):
        fullest = max(sizes, key=lambda alias: sizes[alias])
        sizes[fullest] -= 1
        moved.append(
            max(s for s, owner in enumerate(owners) if owner == fullest and s not in moved)
        )
    return moved


def _merge(streams: int) -> float:
    """Time the merge of a page, as every fan-out with an order does it."""
    draw = random.Random(streams)
    parts = [
        [("shard", (value,)) for value in sorted(draw.random() for _ in range(_PAGE))]
        for _ in range(streams)
    ]
    start = perf_counter()
    rows = merge_streams(parts, [SortTerm(0)])
    for _ in range(_PAGE):
        next(iter(rows))
    return perf_counter() - start


def _title(text: str) -> None:
    print(f"{text}\n")


def _print(table: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    for row in table:
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))
    print()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scale",
        description=(__doc__ or "").partition("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--users", type=int, default=1_000_000_000, help="how many users")
    add("--rows", type=float, default=20, help="rows that a user has besides the profile")
    add("--rate", type=float, default=50_000, help="rows a second that a move copies")
    add("--pool", type=int, default=5, help="DATABASE_POOL_MAX")
    add("--server-pool", type=int, default=64, help="PgBouncer's default_pool_size")
    add("--median", type=float, default=2, help="ms that one shard takes for a page")
    add("--slowest", type=float, default=20, help="ms of its 99th percentile")
    add("--seed", type=int, default=1, help="of the random numbers")
    return parser


if __name__ == "__main__":
    main()
