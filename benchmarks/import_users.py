"""`import_users` against bulk_create: `python -m benchmarks.import_users [--users N] [--runs N]`.

The baseline reads the same CSV file, checks nothing, builds model objects, and stores accounts and
profiles, grouped by shard, with bulk_create in batches of the same size.
"""

import argparse
import csv
import json
import tempfile
import uuid
from collections import defaultdict
from datetime import datetime
from itertools import cycle, islice
from pathlib import Path

from benchmarks.harness import Way, benchmark_databases, compare, empty_tables

_SAMPLE = Path(__file__).resolve().parent.parent / "users" / "sample" / "users.csv"
_BATCH = 10_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=50_000)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, benchmark_databases():
        from users.importing import import_users
        from users.models import Profile, User

        path = Path(folder) / "users.csv"
        write_users(path, options.users)
        ratio = compare(
            baseline=Way("bulk_create", lambda: bulk_create(path)),
            candidate=Way("import_users", lambda: import_users(str(path))),
            runs=options.runs,
            prepare=lambda: empty_tables(User, Profile),
        )
        print(ratio.table(amount=options.users, unit="users"))


def write_users(path: Path, number: int) -> None:
    """Write as many users, like those of the sample, each with an id and email of their own."""
    with _SAMPLE.open(newline="", encoding="utf-8") as file:
        sample = list(csv.DictReader(file))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, sample[0])
        writer.writeheader()
        for position, row in enumerate(islice(cycle(sample), number)):
            own = {"id": uuid.uuid4(), "email": f"{position}.{row['email']}"}
            writer.writerow({**row, **own})


def bulk_create(path: Path) -> None:
    """Import the file with Django's own means."""
    from django.contrib.auth.hashers import make_password

    with path.open(newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        password = make_password(None)
        while batch := list(islice(rows, _BATCH)):
            _store(batch, password)


def _store(rows: list[dict[str, str]], password: str) -> None:
    from sharding import get_shard_for_user_id
    from users.models import Profile, User

    users = [_user(row, password) for row in rows]
    profiles = defaultdict(list)
    for row, user in zip(rows, users, strict=True):
        profiles[get_shard_for_user_id(user.id)].append(_profile(row, user))
    User.objects.bulk_create(users, batch_size=_BATCH)
    for alias, owned in profiles.items():
        Profile.objects.using(alias).bulk_create(owned, batch_size=_BATCH)


def _user(row: dict[str, str], password: str):
    from users.models import User

    return User(
        id=uuid.UUID(row["id"]),
        email=row["email"],
        name=row["name"],
        is_active=row["is_active"] == "true",
        date_joined=datetime.fromisoformat(row["date_joined"]),
        last_login=datetime.fromisoformat(row["last_login"]) if row["last_login"] else None,
        password=password,
    )


def _profile(row: dict[str, str], user):
    from users.models import Profile

    return Profile(
        user_id=user.id,
        display_name=row["display_name"],
        country=row["country"],
        plan=row["plan"],
        bio=row["bio"],
        settings=json.loads(row["settings"]),
        created_at=user.date_joined,
    )


if __name__ == "__main__":
    main()
