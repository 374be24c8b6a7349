"""Comparing a source with its copies by hashes of buckets: one scan of each side, no rows sent."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from django.db import connections

from analytics.sync import statements
from analytics.sync.arrivals import owning
from analytics.sync.described import Source
from analytics.sync.errors import naming
from analytics.sync.statements import Range
from sharding import conf
from sharding.comparing import Hashes, differences, hashes

__all__ = ["Comparison", "compare", "differing_keys", "has_copies"]

_ROWS_PER_BUCKET = 16
_FITTING = 4096  # buckets, whose hashes a server's cache holds
_ROWS_PER_BUCKET_OF_MORE = 256
_MOST_BITS = 16


@dataclass(frozen=True)
class Comparison:
    """The buckets that differ, as ranges of keys, and the numbers of rows on either side."""

    ranges: list[Range]
    rows: int
    copies: int
    differing_rows: int  # of the source, in the buckets that differ


def compare(source: Source) -> Comparison:
    """Compare all rows with their copies. Raises SyncFailed, DatabaseUnavailable."""
    source = owning(source)
    bits = _bits(source)
    here, there = _both_hashes(source, bits)
    differing = sorted(differences(here, there))
    return Comparison(
        ranges=[_range(bucket, bits) for bucket in differing],
        rows=sum(count for count, _ in here.values()),
        copies=sum(count for count, _ in there.values()),
        differing_rows=sum(here.get(bucket, (0, 0))[0] for bucket in differing),
    )


def has_copies(source: Source) -> bool:
    """Whether analytics holds any copies of the source's rows."""
    alias = conf.analytics()
    with naming(alias), connections[alias].cursor() as cursor:
        cursor.execute(statements.any_copies(owning(source)))
        return cursor.fetchone()[0]


def differing_keys(source: Source, ranges: Sequence[Range]) -> list[UUID]:
    """Return the keys in these ranges whose row and copy differ, or of which one is missing."""
    source = owning(source)
    here = _row_hashes(source, ranges, copies=False)
    there = _row_hashes(source, ranges, copies=True)
    return sorted(differences(here, there))


def _bits(source: Source) -> int:
    with naming(source.alias), connections[source.alias].cursor() as cursor:
        cursor.execute(
            # reltuples is -1 before the first ANALYZE; a row takes about 200 bytes.
            "SELECT greatest(reltuples, pg_relation_size(oid) / 200, 1)"
            " FROM pg_class WHERE oid = %s::regclass",
            [source.table.as_string()],
        )
        (rows,) = cursor.fetchone()
    buckets = max(min(rows / _ROWS_PER_BUCKET, _FITTING), rows / _ROWS_PER_BUCKET_OF_MORE)
    return min(max(round(math.log2(buckets + 1)), 1), _MOST_BITS)


def _both_hashes(source: Source, bits: int) -> tuple[Hashes[int], Hashes[int]]:
    """Hash rows and copies, each server at the same time as the other."""
    asked = {
        alias: (statements.bucket_hashes(source, copies=copies, bits=bits).as_string(), None)
        for alias, copies in ((source.alias, False), (conf.analytics(), True))
    }
    # A server expects a bucket for each row, and would sort them all on disk.
    settings = "SET LOCAL enable_sort = off; SET LOCAL work_mem = '64MB'"
    with naming(source.alias):
        here, there = hashes(asked, settings=settings)
    return here, there


def _row_hashes(source: Source, ranges: Sequence[Range], *, copies: bool) -> dict[UUID, int]:
    alias = conf.analytics() if copies else source.alias
    lows, highs = [low for low, _ in ranges], [high for _, high in ranges]
    with naming(alias), connections[alias].cursor() as cursor:
        cursor.execute(statements.row_hashes(source, copies=copies), [lows, highs])
        return dict(cursor.fetchall())


def _range(bucket: int, bits: int) -> Range:
    """The smallest and the largest key of a bucket."""
    rest = 128 - bits
    return UUID(int=bucket << rest), UUID(int=((bucket + 1) << rest) - 1)
