"""The SQL of the sync, for one source. What is copied is said in analytics.sync.described."""

from collections.abc import Iterable, Sequence
from uuid import UUID

from psycopg.sql import SQL, Composable, Composed, Identifier, Literal

from analytics.sync.described import Source
from sharding.slot_sql import in_slots, slot_of

__all__ = [
    "INCOMING",
    "any_copies",
    "bucket_hashes",
    "copy_keys",
    "copy_out_keys",
    "copy_pages",
    "copy_ranges",
    "copy_to",
    "copy_to_log",
    "count_copies",
    "count_rows",
    "create_incoming",
    "delete_keys",
    "delete_ranges",
    "lock_source",
    "log_rows",
    "merge",
    "row_hashes",
]

Range = tuple[UUID, UUID]

INCOMING = Identifier("sync_incoming")


def lock_source(source: Source) -> Composed:
    """Keep table rewrites away: one that commits between snapshot and read shows no rows."""
    return SQL("LOCK TABLE {}, {} IN ACCESS SHARE MODE").format(source.table, source.log)


def copy_keys(source: Source, keys: Sequence[UUID]) -> Composed:
    """Read the rows of these keys. Binary, as all copying is here."""
    which = SQL("WHERE s.{} = ANY({})").format(source.key, _uuids(keys))
    return _copy_out(source, which)


def copy_ranges(source: Source, ranges: Sequence[Range]) -> Composed:
    """Read the rows in ranges of keys, both ends included."""
    # COPY takes no parameters.
    lows, highs = _uuids([low for low, _ in ranges]), _uuids([high for _, high in ranges])
    which = SQL("JOIN unnest({}, {}) AS r(low, high) ON {}").format(
        lows, highs, _within("s", source.key)
    )
    return _copy_out(source, which)


def copy_pages(source: Source, first: int, end: int) -> Composed:
    """Read the rows on the table's pages from `first` to before `end`."""
    which = SQL("WHERE s.ctid >= {} AND s.ctid < {}").format(_page(first), _page(end))
    return _copy_out(source, which)


def create_incoming(source: Source) -> Composed:
    """Make the temporary table that holds a batch until it is merged."""
    return SQL("CREATE TEMPORARY TABLE {} ON COMMIT DROP AS SELECT {} FROM {} WITH NO DATA").format(
        INCOMING, _list(_written(source)), source.target
    )


def copy_to(table: Identifier, source: Source) -> Composed:
    """Fill a table with what one of the copy_… statements gave."""
    return SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(table, _list(_written(source)))


def merge(source: Source) -> Composed:
    """Write the rows that came in and are new or differ. Equal ones keep their synced_at."""
    key, *values = _written(source)
    return SQL(
        "INSERT INTO {target} AS old ({columns}) SELECT {columns} FROM {incoming}"
        " ON CONFLICT ({key}) DO UPDATE"
        " SET ({values}, synced_at) = ROW({new}, statement_timestamp())"
        " WHERE record_image_ne(ROW({old}), ROW({new}))"
    ).format(
        target=source.target,
        columns=_list([key, *values]),
        incoming=INCOMING,
        key=key,
        values=_list(values),
        new=_list(_of("excluded", column) for column in values),
        old=_list(_of("old", column) for column in values),
    )


def delete_keys(source: Source) -> Composed:
    """Delete the copies of the keys in the parameter that did not come in."""
    return SQL("DELETE FROM {} t WHERE {} = ANY(%s) AND {}").format(
        source.target, _of("t", source.target_key), _did_not_come(source)
    )


def delete_ranges(source: Source) -> Composed:
    """Delete the copies in ranges of keys, from the first parameter's to the second's, likewise."""
    return SQL(
        "DELETE FROM {} t USING unnest(%s::uuid[], %s::uuid[]) AS r(low, high) WHERE {} AND {}"
    ).format(source.target, _within("t", source.target_key), _did_not_come(source))


def copy_out_keys(source: Source) -> Composed:
    """Read the keys of all copies in the source's slots, whichever shard they name."""
    return SQL("COPY (SELECT {} FROM {} t WHERE {}) TO STDOUT (FORMAT BINARY)").format(
        _of("t", source.target_key), source.target, _own_copies(source)
    )


def copy_to_log(source: Source) -> Composed:
    """Log the keys that `copy_out_keys` gave."""
    return SQL("COPY {} (user_id) FROM STDIN (FORMAT BINARY)").format(source.log)


def log_rows(source: Source) -> Composed:
    """Log the rows in the source's slots that the log does not name yet."""
    return SQL("INSERT INTO {} (user_id) SELECT {} {}").format(
        source.log, _of("t", source.key), _unlogged(source)
    )


def any_copies(source: Source) -> Composed:
    """Whether there is any copy of the source's rows."""
    return SQL("SELECT EXISTS (SELECT FROM {} t WHERE {})").format(
        source.target, _own_copies(source)
    )


def count_rows(source: Source) -> Composed:
    """Count the rows of users whom the log does not name."""
    return SQL("SELECT count(*) {}").format(_unlogged(source))


def count_copies(source: Source) -> Composed:
    """Count the copies of users other than those in the parameter."""
    return SQL("SELECT count(*) FROM {} t WHERE {} AND {} <> ALL(%s)").format(
        source.target, _own_copies(source), _of("t", source.target_key)
    )


def bucket_hashes(source: Source, *, copies: bool, bits: int) -> Composed:
    """Count and hash the rows, or their copies, by the leading `bits` of the key: 1 to 16.

    Each row is hashed with its key, so no two of them cancel each other out.
    """
    table, columns = _side(source, copies=copies)
    return SQL(
        "SELECT {bucket}, count(*), bit_xor({hash}) FROM {table} t WHERE {where} GROUP BY 1"
    ).format(
        bucket=_bucket(columns[0], bits),
        hash=_hash(source, columns, copies=copies),
        table=table,
        where=_own_copies(source) if copies else _own_rows(source),
    )


def row_hashes(source: Source, *, copies: bool) -> Composed:
    """The key and the hash of each row, or copy, in ranges of keys given by two parameters."""
    table, columns = _side(source, copies=copies)
    return SQL(
        "SELECT {key}, {hash}"
        " FROM {table} t JOIN unnest(%s::uuid[], %s::uuid[]) AS r(low, high) ON {within}"
        " WHERE {where}"
    ).format(
        key=columns[0],
        hash=_hash(source, columns, copies=copies),
        table=table,
        within=_within("t", source.target_key if copies else source.key),
        where=_own_copies(source) if copies else _own_rows(source),
    )


def _copy_out(source: Source, which: Composed) -> Composed:
    columns: list[Composable] = [_of("s", column) for column in source.columns]
    if source.shard_column:
        columns.append(SQL("{}::text").format(Literal(source.alias)))
    if source.slots is not None:
        which += SQL(" AND {}").format(_in_own_slots(source, _of("s", source.key)))
    return SQL("COPY (SELECT {} FROM {} s {}) TO STDOUT (FORMAT BINARY)").format(
        _list(columns), source.table, which
    )


def _written(source: Source) -> list[Identifier]:
    shard = [source.shard_column] if source.shard_column else []
    return [*source.target_columns, *shard]


def _side(source: Source, *, copies: bool) -> tuple[Identifier, list[Composable]]:
    table = source.target if copies else source.table
    columns = source.target_columns if copies else source.columns
    return table, [_of("t", column) for column in columns]


def _hash(source: Source, columns: Sequence[Composable], *, copies: bool) -> Composed:
    """The hash of a row, the same on every server."""
    values = [
        SQL("{}::text").format(column) if as_text else column
        for column, as_text in zip(columns, source.as_text, strict=True)
    ]
    row = _list([*values, *_shard_of(source, copies=copies)])
    return SQL("hash_record_extended(ROW({}), 0)").format(row)


def _did_not_come(source: Source) -> Composed:
    return SQL("{} AND NOT EXISTS (SELECT FROM {} i WHERE {} = {})").format(
        _own_copies(source), INCOMING, _of("i", source.target_key), _of("t", source.target_key)
    )


def _own_copies(source: Source) -> Composable:
    if not source.shard_column:
        return SQL("true")
    if source.slots is not None:  # of users who came from another shard, copies may still name that
        return _in_own_slots(source, _of("t", source.target_key))
    return SQL("{} = {}").format(_of("t", source.shard_column), Literal(source.alias))


def _own_rows(source: Source) -> Composable:
    if source.slots is None:
        return SQL("true")
    return _in_own_slots(source, _of("t", source.key))


def _unlogged(source: Source) -> Composed:
    """The rows of users whom the log does not name."""
    return SQL(
        "FROM {table} t WHERE {own} AND NOT EXISTS (SELECT FROM {log} WHERE user_id = {key})"
    ).format(
        table=source.table,
        own=_own_rows(source),
        log=source.log,
        key=_of("t", source.key),
    )


def _in_own_slots(source: Source, key: Composable) -> Composable:
    return in_slots(slot_of(key), source.slots or ())


def _shard_of(source: Source, *, copies: bool) -> list[Composable]:
    """What a copy says of its shard, as a value to compare."""
    if not source.shard_column:
        return []
    if copies:
        return [_of("t", source.shard_column)]
    return [SQL("{}::varchar").format(Literal(source.alias))]


def _uuids(keys: Iterable[UUID]) -> Composed:
    return SQL("{}::uuid[]").format(Literal([str(key) for key in keys]))


def _page(number: int) -> Composed:
    return SQL("{}::tid").format(Literal(f"({number},0)"))


def _bucket(key: Composable, bits: int) -> Composed:
    return SQL(
        "(get_byte(uuid_send({key}), 0) << 8 | get_byte(uuid_send({key}), 1)) >> {shift}"
    ).format(key=key, shift=Literal(16 - bits))


def _within(table: str, key: Composable) -> Composed:
    return SQL("{} BETWEEN r.low AND r.high").format(_of(table, key))


def _list(parts: Iterable[Composable]) -> Composed:
    return SQL(", ").join(parts)


def _of(table: str, column: Composable) -> Composed:
    return SQL("{}.{}").format(Identifier(table), column)
