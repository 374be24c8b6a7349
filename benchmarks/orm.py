"""The sharded ORM against plain Django on one database, and against SQLAlchemy's horizontal_shard.

    python -m benchmarks.orm [--rows 30000] [--runs 5] [--only get,page,…]

Each line is a ratio of times in one run: 1.5 means that it takes one and a half times as long as
the baseline. Rows are per shard.
"""

import argparse
import os
import resource
import statistics
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from selectors import EVENT_READ, PollSelector
from typing import Any

from benchmarks.harness import Way, benchmark_databases, compare

SHARDS = 3
QUICK = 4  # times as many runs of what is over in a moment, or chance decides


def main() -> None:
    arguments = _arguments()
    with benchmark_databases(shards=8):
        from users.models import Profile

        fill(Profile, arguments.rows)
        for name, measure in MEASUREMENTS.items():
            if not arguments.only or name in arguments.only:
                measure(Profile, arguments.runs)


def fill(model: Any, rows: int) -> None:
    """Store `rows` profiles on each of the first shards, which own all slots."""
    from sharding import get_shard_for_user_id

    missing = {f"shard_{number + 1}": rows for number in range(SHARDS)}
    start = datetime(2025, 1, 1, tzinfo=UTC)
    batch = []
    while any(missing.values()):
        user_id = uuid.uuid4()
        owner = get_shard_for_user_id(user_id)
        if missing[owner]:
            missing[owner] -= 1
            created = start + timedelta(seconds=user_id.int % 50_000_000)
            batch.append(model(user_id=user_id, display_name=f"user {created}", created_at=created))
        if len(batch) == 10_000 or not any(missing.values()):
            model.objects.bulk_create(batch)
            batch = []
    _everywhere("ANALYZE users_profile")


def get(model: Any, runs: int) -> None:
    """A keyed get(), which finds its shard, over the same with the shard given."""
    places = [(alias, key) for alias in _owners() for key in _keys(model, alias, 100)]

    def routed() -> None:
        for _, key in places:
            model.objects.get(user_id=key)

    def pinned() -> None:
        for alias, key in places:
            model.objects.using(alias).get(user_id=key)

    _print("get by key / .using(alias).get()", routed, pinned, QUICK * runs, bound=1.05)


def sqlalchemy_get(model: Any, runs: int) -> None:
    """The same keyed get() over horizontal_shard's session.get()."""
    try:
        from benchmarks.horizontal_shard import Session, SqlProfile
    except ImportError:
        print("get by key / horizontal_shard: not installed, see requirements-bench.txt")
        return
    keys = [key for alias in _owners() for key in _keys(model, alias, 100)]

    def routed() -> None:
        for key in keys:
            model.objects.get(user_id=key)

    def theirs() -> None:
        with Session() as session:
            for key in keys:
                session.get(SqlProfile, key)
                session.expunge_all()

    _print("get by key / horizontal_shard session.get()", routed, theirs, QUICK * runs, bound=0.6)


def page(model: Any, runs: int) -> None:
    """The newest 20 of all shards over the newest 20 of one."""

    def newest(queryset: Any) -> Callable[[], None]:
        def run() -> None:
            for _ in range(100):
                list(queryset.order_by("-created_at")[:20])

        return run

    shards, shard = newest(model.objects.across_shards()), newest(model.objects.using("shard_1"))
    _print("newest 20 of 3 shards / of one", shards, shard, QUICK * runs, bound=1.5)
    first = model.objects.using("shard_1").order_by("-created_at")[:20]
    _print_floor(str(first.query), 100, runs)


def count(model: Any, runs: int) -> None:
    """count() over all shards over count() on one."""

    def counted(queryset: Any) -> Callable[[], None]:
        def run() -> None:
            for _ in range(40):
                queryset.count()

        return run

    shards, shard = counted(model.objects.across_shards()), counted(model.objects.using("shard_1"))
    _print("count() of 3 shards / of one", shards, shard, QUICK * runs, bound=1.6)
    _print_floor("SELECT count(*) FROM users_profile", 40, runs)
    _print_computing(runs)


def distant(model: Any, runs: int) -> None:
    """8 shards over one where each query takes the server 50 ms longer."""
    from sharding.orm.scatter import scatter

    every = tuple(f"shard_{number + 1}" for number in range(8))
    statement = ("SELECT count(*), pg_sleep(0.05) FROM users_profile", None)

    def ask(aliases: tuple[str, ...]) -> Callable[[], None]:
        def run() -> None:
            for _ in range(4):
                scatter(dict.fromkeys(aliases, statement))

        return run

    _print("8 shards / one, 50 ms each", ask(every), ask(every[:1]), runs, bound=1.2)


def iterate(model: Any, runs: int) -> None:
    """iterator() over all shards over plain Django's on one table with all rows, and its memory."""
    with _plain_table(model) as plain:

        def read(queryset: Any) -> Callable[[], None]:
            def run() -> None:
                for _ in queryset.iterator():
                    pass

            return run

        shards, table = read(model.objects.across_shards()), read(plain.objects.using("default"))
        _print("iterator() of 3 shards / of one table", shards, table, runs, bound=1.25)
        ordered = read(model.objects.across_shards().order_by("created_at"))
        table = read(plain.objects.using("default").order_by("created_at"))
        _print("ordered iterator() of 3 shards / of one table", ordered, table, runs, bound=None)
    before = _peak()
    shards()
    print(f"{'':4}peak memory grew by {(_peak() - before) / 1024:.1f} MiB while iterating")


def bulk_create(model: Any, runs: int) -> None:
    """bulk_create() of 20,000 rows over all shards over the same number on one."""
    spread = [uuid.uuid4() for _ in range(20_000)]
    one = _ids_of("shard_1", 20_000)

    def prepare() -> None:
        model.objects.across_shards().filter(display_name="bulk").delete()

    def create(ids: list[uuid.UUID]) -> Callable[[], None]:
        return lambda: model.objects.bulk_create(
            [model(user_id=user_id, display_name="bulk") for user_id in ids]
        )

    name = "bulk_create() on 3 shards / on one"
    _print(name, create(spread), create(one), runs, bound=1.1, prepare=prepare)
    prepare()


MEASUREMENTS = {
    "get": get,
    "sqlalchemy": sqlalchemy_get,
    "page": page,
    "count": count,
    "distant": distant,
    "bulk_create": bulk_create,
    "iterate": iterate,
}


def _print_computing(runs: int) -> None:
    """The same over and over inside the servers: what is left without any client, of the cores."""
    from sharding.orm.scatter import scatter

    statement = (
        "SELECT sum(c.n) FROM generate_series(1, 100) AS turn,"
        " LATERAL (SELECT count(*) + 0 * turn AS n FROM users_profile) AS c",
        None,
    )

    def compute(shards: int) -> Callable[[], None]:
        asked = dict.fromkeys(list(_owners())[:shards], statement)

        def run() -> None:
            scatter(asked)

        return run

    for shards in (2, 3):
        name = f"    {shards} servers that count on their own / one"
        _print(name, compute(shards), compute(1), runs, bound=None)


def _print_floor(query: str, times: int, runs: int) -> None:
    """The same statement through libpq alone: what is left of the ratio without any Python."""
    from django.db import connections

    opened = [connections[alias].connection.pgconn for alias in _owners()]

    def ask(asked: list[Any]) -> Callable[[], None]:
        def run() -> None:
            for _ in range(times):
                _ask(asked, query.encode())

        return run

    _print("  the same through libpq alone", ask(opened), ask(opened[:1]), QUICK * runs, bound=None)


def _ask(asked: list[Any], query: bytes) -> None:
    for connection in asked:
        connection.send_query(query)
    with PollSelector() as selector:
        for connection in asked:
            selector.register(connection.socket, EVENT_READ, connection)
        while selector.get_map():
            for key, _ in selector.select():
                if _is_answered(key.data):
                    selector.unregister(key.fileobj)


def _is_answered(connection: Any) -> bool:
    connection.consume_input()
    while not connection.is_busy():
        if connection.get_result() is None:
            return True
    return False


def _print(
    name: str,
    candidate: Callable[[], None],
    baseline: Callable[[], None],
    runs: int,
    *,
    bound: float | None,
    prepare: Callable[[], object] = lambda: None,
) -> None:
    ratio = compare(
        baseline=Way("baseline", baseline),
        candidate=Way("candidate", candidate),
        runs=runs,
        prepare=prepare,
    )
    pairs = [c / b for c, b in zip(ratio.candidate_seconds, ratio.baseline_seconds, strict=True)]
    goal = f"at most {bound}" if bound else "no goal"
    spread = f"{min(pairs):.2f} to {max(pairs):.2f}"
    print(f"{name:48} {statistics.median(pairs):6.2f}  ({spread}; {goal})", flush=True)


def _owners() -> tuple[str, ...]:
    return tuple(f"shard_{number + 1}" for number in range(SHARDS))


def _keys(model: Any, alias: str, number: int) -> list[uuid.UUID]:
    return list(model.objects.using(alias).values_list("user_id", flat=True)[:number])


def _ids_of(alias: str, number: int) -> list[uuid.UUID]:
    from sharding import get_shard_for_user_id

    ids: list[uuid.UUID] = []
    while len(ids) < number:
        if get_shard_for_user_id(user_id := uuid.uuid4()) == alias:
            ids.append(user_id)
    return ids


@contextmanager
def _plain_table(model: Any) -> Iterator[Any]:
    """An ordinary model with a table of all shards' rows on the primary."""
    from django.db import connection, models

    fields = {field.name: field.clone() for field in model._meta.local_fields}
    meta = type("Meta", (), {"app_label": "users", "db_table": "plain_profile"})
    plain: Any = type("PlainProfile", (models.Model,), {**fields, "Meta": meta, "__module__": ""})
    with connection.schema_editor() as editor:
        editor.create_model(plain)
    names = [field.attname for field in model._meta.local_fields]
    rows = model.objects.across_shards().values_list(*names).iterator()
    batch = [plain(**dict(zip(names, row, strict=True))) for row in rows]
    plain.objects.using("default").bulk_create(batch, batch_size=10_000)
    _everywhere("ANALYZE")
    yield plain
    with connection.schema_editor() as editor:
        editor.delete_model(plain)


def _everywhere(statement: str) -> None:
    from django.db import connections

    from sharding import conf

    for alias in ("default", *conf.shards()):
        with connections[alias].cursor() as cursor:
            if alias != "default" or statement == "ANALYZE":
                cursor.execute(statement)


def _peak() -> int:
    """The process's largest resident size so far, in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=30_000, help="profiles on each shard")
    parser.add_argument("--runs", type=int, default=5, help="counted runs of each way")
    parser.add_argument("--only", type=lambda text: text.split(","), help=", ".join(MEASUREMENTS))
    return parser.parse_args()


if __name__ == "__main__":
    os.environ["SHARD_SLOTS"] = "shard_1=0-333,shard_2=334-666,shard_3=667-999"
    main()
