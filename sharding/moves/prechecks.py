"""What must be true before a move begins: each refusal says what to do, and nothing is touched."""

from collections.abc import Callable, Collection, Iterator

from django.db import DatabaseError, connections, transaction
from psycopg.sql import SQL, Identifier, Literal

from sharding import conf, identity, ownership, slot_cache
from sharding.errors import MoveRefused, WrongDatabase
from sharding.moves import leftovers, record
from sharding.moves.servers import replication_address, rows, value
from sharding.slot_sql import in_slots, ranges
from sharding.tables import tables

__all__ = ["problems", "require"]

_OLD = 30  # seconds; CREATE SUBSCRIPTION would wait for such a transaction
_SPARE = 1.5  # times the size of what moves must be free on the target's disk

Problems = Iterator[str]


def require(source: str, target: str, slots: Collection[int]) -> None:
    """Raise MoveRefused with everything that stands in the way."""
    if found := problems(source, target, slots):
        raise MoveRefused("\n".join([f"Nothing was moved from {source} to {target}:", *found]))


def problems(source: str, target: str, slots: Collection[int]) -> list[str]:
    """Return what stands in the way of a move; later checks wait for those they build upon."""
    if found := [*_request(source, target, slots), *_through_pooler(), *_other_move()]:
        return found
    for checks in (_REACHABLE, _ITSELF, _SET_UP, _READY):
        for check in checks:
            found += check(source, target, slots)
        if found:
            return found
    return found


def _request(source: str, target: str, slots: Collection[int]) -> Problems:
    shards = conf.shards()
    for alias in (source, target):
        if alias not in shards:
            yield f"{alias} is no shard. The shards are {', '.join(shards)}."
    if source == target:
        yield f"{target} owns these slots already. Name another shard with --to."
    owned = slot_cache.renew().slots(source)
    if not slots or not owned.issuperset(slots):
        missing = ranges(set(slots) - owned)
        yield f"{source} does not own the slots {missing}. See `manage.py shards status`."


def _through_pooler() -> Problems:
    """Locks and settings of a session, and replication, do not pass a pooler of transactions."""
    for alias in (conf.primary(), *conf.shards()):
        if connections[alias].settings_dict.get("DISABLE_SERVER_SIDE_CURSORS"):
            yield (
                f"{conf.label(alias)} is reached through PgBouncer (pgbouncer=true). Run this "
                f"command with a URL that leads to the server itself."
            )


def _other_move() -> Problems:
    if other := record.active():
        yield (
            f"{other} is not finished; it is in the state {other.state}. Go on with it, `manage.py "
            f"shards move --resume`, or give it up, `manage.py shards move --abort`."
        )


def _answers(source: str, target: str, slots: Collection[int]) -> Problems:
    for alias in (source, target):
        try:
            value(alias, "SELECT 1")
        except DatabaseError as error:
            yield str(error)


def _is_itself(source: str, target: str, slots: Collection[int]) -> Problems:
    for alias in (source, target):
        connections[alias].ensure_connection()
        try:
            if found := identity.problem(alias, connections[alias].connection):
                yield found
                continue
            with connections[alias].cursor() as cursor:
                if not identity.knows_itself(cursor):
                    yield f"{alias} is not set up yet. Run `manage.py migrate`."
                if not ownership.guard_agrees(cursor):
                    yield f"The guard of {alias} is not as its slots say. Run `manage.py migrate`."
        except (DatabaseError, WrongDatabase) as error:
            yield f"{alias} is not set up: {error}. Run `manage.py migrate`."


def _two_servers(source: str, target: str, slots: Collection[int]) -> Problems:
    query = "SELECT system_identifier FROM pg_control_system()"
    if value(source, query) == value(target, query):
        yield (
            f"{source} and {target} are databases of one server (or of copies of one), between "
            f"which it cannot replicate to itself. Give {target} a server of its own."
        )


def _migrations(source: str, target: str, slots: Collection[int]) -> Problems:
    query = "SELECT app, name FROM django_migrations"
    here, there = set(rows(source, query)), set(rows(target, query))
    if here != there:
        names = ", ".join(".".join(each) for each in sorted(here ^ there)[:5])
        yield f"{source} and {target} differ in migrations ({names}). Run `manage.py migrate`."


def _wal_level(source: str, target: str, slots: Collection[int]) -> Problems:
    level = value(source, "SHOW wal_level")
    if level != "logical":
        yield (
            f"{source} has wal_level = {level}. Set it to logical in its postgresql.conf (or ALTER "
            f"SYSTEM SET wal_level = logical) and restart that server."
        )


def _wal_limit(source: str, target: str, slots: Collection[int]) -> Problems:
    if value(source, "SHOW max_slot_wal_keep_size") == "-1":
        yield (
            f"{source} has no limit for what a replication slot may keep: a move that is left "
            f"alone would fill its disk. ALTER SYSTEM SET max_slot_wal_keep_size = '20GB', or what "
            f"its disk has to spare, then SELECT pg_reload_conf()."
        )


def _free_places(source: str, target: str, slots: Collection[int]) -> Problems:
    """One slot and sender for the subscription, and as many as copy tables at the same time."""
    copying = int(value(target, "SHOW max_sync_workers_per_subscription"))
    needed = 1 + min(copying, len(tables()))
    for alias, setting, used in (
        (source, "max_replication_slots", "SELECT count(*) FROM pg_replication_slots"),
        (source, "max_wal_senders", "SELECT count(*) FROM pg_stat_replication"),
        (target, _origins(target), "SELECT count(*) FROM pg_replication_origin"),
        (target, "max_logical_replication_workers", "SELECT count(pid) FROM pg_stat_subscription"),
    ):
        free = int(value(alias, f"SHOW {setting}")) - value(alias, used)
        if free < needed:
            yield (
                f"{alias} has {free} free of {setting}, a move needs {needed}. Raise it and "
                f"restart that server, or drop what nobody uses (see `manage.py shards status`)."
            )


def _origins(alias: str) -> str:
    name = "max_active_replication_origins"  # since PostgreSQL 18
    known = value(alias, "SELECT true FROM pg_settings WHERE name = %s", [name])
    return name if known else "max_replication_slots"


def _rights(source: str, target: str, slots: Collection[int]) -> Problems:
    superuser = value(target, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user")
    if not superuser:
        if not value(target, "SELECT pg_has_role('pg_create_subscription', 'MEMBER')"):
            yield (
                f"The role on {target} may not subscribe. As a superuser there: GRANT "
                f"pg_create_subscription TO its role."
            )
        if "password=" not in replication_address(source):
            yield (
                f"{target} would connect to {source} without a password, which only a superuser "
                f"may let it do. Put one into DATABASE_{source.upper()}_REPLICATION_URL."
            )
    for alias in (source, target):
        if not value(alias, "SELECT has_database_privilege(current_database(), 'CREATE')"):
            yield f"The role on {alias} lacks CREATE on its database: GRANT it."
        if owners := value(alias, _NOT_OURS, [[table.name for table in tables()]]):
            yield f"The role on {alias} does not own {owners}: ALTER TABLE … OWNER TO it."
    if not value(
        source, "SELECT rolreplication OR rolsuper FROM pg_roles WHERE rolname = current_user"
    ):
        yield f"The role on {source} may not replicate: ALTER ROLE … REPLICATION."


def _replica_identities(source: str, target: str, slots: Collection[int]) -> Problems:
    for table in tables():
        columns = value(source, _IDENTITY_COLUMNS, [table.sql.as_string()]) or []
        if table.key not in columns:
            yield (
                f"{table.name} is identified for replication without {table.key}. Give it a unique "
                f"constraint that contains {table.key}, then run `manage.py migrate`."
            )


def _reaches(source: str, target: str, slots: Collection[int]) -> Problems:
    """Let the target connect to the source, and take it back."""
    name = f"{record.PREFIX}check"
    statement = SQL(
        "CREATE SUBSCRIPTION {} CONNECTION {} PUBLICATION {} WITH"
        " (connect = true, create_slot = false, enabled = false, slot_name = NONE)"
    ).format(Identifier(name), Literal(replication_address(source)), Identifier(name))
    connection = connections[target]
    try:
        with transaction.atomic(using=target), connection.wrap_database_errors:
            connection.connection.execute("SET LOCAL client_min_messages = error")
            connection.connection.execute(statement)
            transaction.set_rollback(True, using=target)
    except DatabaseError as error:
        reason = str(error).strip().replace("\n", " ")
        yield (
            f"The server of {target} cannot connect to {source}: {reason}. If it knows that server "
            f"under another address than this process, set "
            f"DATABASE_{source.upper()}_REPLICATION_URL."
        )


def _nothing_left_over(source: str, target: str, slots: Collection[int]) -> Problems:
    for alias in (source, target):
        for each in leftovers.find(alias):
            yield f"{each.what}. Remove it first: {each.remedy}"
    with connections[target].cursor() as cursor:
        known = ownership.read(cursor).keys() & set(slots)
    if known:
        yield f"{target} has a record of the slots {ranges(known)}: see `manage.py shards check`."
    for table in tables():
        query = SQL("SELECT count(*) FROM (SELECT FROM {} WHERE {} LIMIT 100000) AS found")
        found = value(target, query.format(table.sql, in_slots(table.slot, slots)))
        if found:
            yield (
                f"{target} has {found} rows of these slots in {table.name} already. Look at them, "
                f"then remove them: `manage.py shards check --repair`."
            )


def _old_writers(source: str, target: str, slots: Collection[int]) -> Problems:
    if found := value(source, _OLD_WRITERS, [_OLD, _OLD]):
        yield (
            f"Transactions on {source} have been writing for more than {_OLD} seconds, and the "
            f"copy could not begin before they end: {found}. Wait for them, or end them "
            f"(pg_terminate_backend; ROLLBACK PREPARED)."
        )


def _disk(source: str, target: str, slots: Collection[int]) -> Problems:
    """Where the role may ask for it; else the operator must know."""
    if not value(target, "SELECT pg_has_role('pg_execute_server_program', 'MEMBER')"):
        return
    owned = max(len(slot_cache.current().slots(source)), 1)
    size = sum(
        value(source, "SELECT pg_total_relation_size(%s::regclass)", [table.sql.as_string()])
        for table in tables()
    )
    needed = int(size * len(slots) / owned * _SPARE)
    free = _free_bytes(target)
    if free is not None and free < needed:
        yield (
            f"{target} has {free / 1e9:.1f} GB free on its disk, the rows need about "
            f"{needed / 1e9:.1f} GB. Give it a larger disk, or move fewer slots."
        )


def _free_bytes(alias: str) -> int | None:
    connection = connections[alias]
    try:
        with transaction.atomic(using=alias), connection.cursor() as cursor:
            cursor.execute("CREATE TEMPORARY TABLE sharding_disk (line text) ON COMMIT DROP")
            # The server runs it in its data folder.
            cursor.execute("COPY sharding_disk FROM PROGRAM 'df -Pk . | tail -n 1'")
            cursor.execute(
                "SELECT (regexp_split_to_array(line, ' +'))[4]::bigint * 1024 FROM sharding_disk"
            )
            return cursor.fetchone()[0]
    except DatabaseError:
        return None


_NOT_OURS = """
    SELECT string_agg(relname, ', ' ORDER BY relname) FROM pg_class
    WHERE relname = ANY(%s) AND relnamespace = current_schema()::regnamespace
      AND NOT pg_has_role(relowner, 'MEMBER')
"""
_IDENTITY_COLUMNS = """
    SELECT array_agg(a.attname::text) FROM pg_class c JOIN pg_index i ON i.indrelid = c.oid
      AND CASE c.relreplident WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident END
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = ANY(i.indkey)
    WHERE c.oid = %s::regclass
"""
_OLD_WRITERS = """
    SELECT string_agg(what, ', ') FROM (
      SELECT 'process ' || pid AS what FROM pg_stat_activity
      WHERE backend_xid IS NOT NULL AND xact_start < clock_timestamp() - make_interval(secs => %s)
        AND datname = current_database()
      UNION ALL
      SELECT 'prepared transaction ' || gid FROM pg_prepared_xacts
      WHERE prepared < clock_timestamp() - make_interval(secs => %s)
        AND database = current_database()
    ) AS old
"""

Check = Callable[[str, str, Collection[int]], Problems]

_REACHABLE: tuple[Check, ...] = (_answers,)
_ITSELF: tuple[Check, ...] = (_is_itself,)
_SET_UP: tuple[Check, ...] = (_two_servers, _migrations)
_READY: tuple[Check, ...] = (
    _wal_level,
    _wal_limit,
    _free_places,
    _rights,
    _replica_identities,
    _reaches,
    _nothing_left_over,
    _old_writers,
    _disk,
)
