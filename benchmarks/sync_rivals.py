"""Other ways to copy all accounts to analytics, for benchmarks.sync. Import after setup."""

import os
import tempfile
from collections.abc import Callable
from typing import Any

from django.db import connections, transaction
from psycopg.sql import SQL, Composed, Identifier

from analytics.models import UserAnalytics
from analytics.sync.described import USERS, Source
from sharding import conf
from sharding.moves.servers import execute, replication_address, value, wait_for
from users.models import User

__all__ = [
    "SOURCE",
    "TARGET",
    "bulk_create",
    "copy_pipe",
    "dlt_replace",
    "native_copy",
    "no_native",
]

SOURCE = Source(USERS, conf.primary())
TARGET = UserAnalytics._meta.db_table
_NATIVE = User._meta.db_table  # logical replication copies into a table of the same name
_BATCH = 5_000


def copy_pipe(table: str = TARGET) -> None:
    """Pipe a binary COPY of the accounts into a COPY to an empty table, and nothing else."""
    out = SQL("COPY (SELECT {} FROM {}) TO STDOUT (FORMAT BINARY)")
    into = SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)")
    with transaction.atomic(using="analytics"):
        here, there = connections["default"].cursor(), connections["analytics"].cursor()
        with (
            here.copy(out.format(_list(SOURCE.columns), SOURCE.table)) as outgoing,
            there.copy(into.format(Identifier(table), _list(SOURCE.target_columns))) as incoming,
        ):
            for block in outgoing:
                incoming.write(block)


def native_copy() -> None:
    """Let a subscription copy the same columns, until all rows can be seen."""
    publication = SQL("CREATE PUBLICATION native FOR TABLE {} ({})")
    execute("default", publication.format(SOURCE.table, _list(SOURCE.columns)))
    execute(
        "analytics",
        f"CREATE SUBSCRIPTION native CONNECTION '{replication_address('default')}'"
        " PUBLICATION native WITH (binary = true)",
    )
    # f: the copying is committed; what follows only joins the stream of changes.
    copied = "SELECT bool_and(srsubstate IN ('f', 's', 'r')) FROM pg_subscription_rel"
    wait_for(lambda: value("analytics", copied), "the copy", timeout=600)


def no_native() -> None:
    """Prepare a native copy: an empty table, of the same shape and with the same indexes."""
    execute("analytics", "DROP SUBSCRIPTION IF EXISTS native")
    execute("default", "DROP PUBLICATION IF EXISTS native")
    execute("analytics", f"DROP TABLE IF EXISTS {_NATIVE}")
    execute("analytics", f"CREATE TABLE {_NATIVE} (LIKE {TARGET} INCLUDING ALL)")
    execute("analytics", f"ALTER TABLE {_NATIVE} RENAME user_id TO id")


def bulk_create(rows: int) -> None:
    """Copy some accounts by Django's own means."""
    names = ["pk", *USERS.columns]
    found = User.objects.values_list(*names)[:rows].iterator(chunk_size=_BATCH)
    targets = ["user_id", *USERS.columns.values()]
    copies = (UserAnalytics(**dict(zip(targets, row, strict=True))) for row in found)
    UserAnalytics.objects.bulk_create(
        copies,
        batch_size=_BATCH,
        update_conflicts=True,
        unique_fields=["user_id"],
        update_fields=targets[1:],
    )


def dlt_replace() -> Callable[[], object] | None:
    """Return a run of dlt that replaces a table of its own with the accounts, if installed."""
    try:
        import dlt
        from dlt.sources.sql_database import sql_table
    except ImportError:
        return None
    os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"
    folder = tempfile.TemporaryDirectory()  # until the function that is returned goes

    def run() -> None:
        table = sql_table(
            credentials=_address("default"),
            table=_NATIVE,
            backend="pyarrow",
            included_columns=["id", *USERS.columns],
        )
        pipeline = dlt.pipeline(
            "users",
            pipelines_dir=folder.name,
            destination=dlt.destinations.postgres(_address("analytics")),
            dataset_name="dlt",
        )
        pipeline.run(table, write_disposition="replace", loader_file_format="csv")

    return run


def _address(alias: str) -> str:
    given = connections[alias].settings_dict
    # dlt insists on a password and a host; it is the host after ? that counts.
    host = f"localhost:{given['PORT']}" if alias == "analytics" else ""
    return f"postgresql://{given['USER']}:none@{host}/{given['NAME']}?host={given['HOST']}"


def _list(columns: list[Any]) -> Composed:
    return SQL(", ").join(columns)
