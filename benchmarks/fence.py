"""What the guard costs: the same writes with its triggers and without. Part of benchmarks.moves."""

import tempfile
import uuid
from collections.abc import Callable
from pathlib import Path

from benchmarks.harness import Ratio, Way, compare, empty_tables
from benchmarks.import_users import write_users

__all__ = ["compare_guard", "set_guard"]

_SAVES = 300


def compare_guard(*, rows: int, runs: int) -> list[tuple[Ratio, int, str]]:
    """Compare save(), bulk_create() of `rows` profiles and import_users; import after setup."""
    from users.importing import import_users
    from users.models import Activity, Profile, User

    saved = [Profile(user_id=uuid.uuid4()) for _ in range(_SAVES)]
    Profile.objects.bulk_create(saved)
    found = [(_ratio("save() of one profile", lambda: _save(saved), runs * 4), _SAVES, "rows")]
    empty: Callable[[], object] = lambda: empty_tables(User, Profile, Activity)  # noqa: E731
    found.append((_ratio("bulk_create()", lambda: _bulk(rows), runs, empty), rows, "rows"))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "users.csv"
        write_users(path, rows)
        run: Callable[[], object] = lambda: import_users(str(path))  # noqa: E731
        found.append((_ratio("import_users", run, runs, empty), rows, "users"))
    empty()
    return found


def set_guard(*, on: bool) -> None:
    """Switch the guard's triggers on or off on every shard."""
    from django.db import connections

    from sharding import conf
    from sharding.tables import tables

    for alias in conf.shards():
        with connections[alias].cursor() as cursor:
            for table in tables():
                for name in ("insert", "update", "delete", "truncate"):
                    cursor.execute(
                        f"ALTER TABLE {table.name} {'ENABLE' if on else 'DISABLE'}"
                        f" TRIGGER sharding_guard_{name}"
                    )


def _ratio(
    what: str, run: Callable[[], object], runs: int, prepare: Callable[[], object] = lambda: None
) -> Ratio:
    return compare(
        baseline=Way(f"{what}, no guard", run, before=lambda: set_guard(on=False)),
        candidate=Way(f"{what}, guarded", run, before=lambda: set_guard(on=True)),
        runs=runs,
        prepare=prepare,
    )


def _save(profiles: list) -> None:
    for profile in profiles:
        profile.save()


def _bulk(rows: int) -> None:
    from users.models import Profile

    Profile.objects.bulk_create([Profile(user_id=uuid.uuid4()) for _ in range(rows)])
