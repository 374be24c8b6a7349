"""Files of people to import, and what became of them."""

import csv
import json
import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sharding import conf, get_shard_for_user_id
from users.importing import Totals
from users.models import Profile, User

__all__ = ["Folder", "Person", "counts", "empty", "number_of_profiles", "people", "profile_of"]

Person = Mapping[str, Any]


class Folder:
    """A temporary folder with files to import."""

    path: Path

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)  # type: ignore[attr-defined]
        self.path = Path(folder.name)
        super().setUp()  # type: ignore[misc]

    def csv(self, *people: Person, name: str = "users.csv") -> str:
        """Write a CSV file with the columns that anybody has."""
        with (self.path / name).open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, max(people, key=len))
            writer.writeheader()
            writer.writerows(people)
        return str(self.path / name)

    def ndjson(self, *people: Person) -> str:
        path = self.path / "users.ndjson"
        path.write_text("".join(json.dumps(person) + "\n" for person in people))
        return str(path)

    def rejected(self, name: str = "users.csv.rejected") -> list[tuple[int, str]]:
        """Line and reason of the rejected lines."""
        with (self.path / name).open(newline="", encoding="utf-8") as file:
            return [(int(row["line"]), row["reason"]) for row in csv.DictReader(file)]


def people(number: int, **values: Any) -> list[dict[str, Any]]:
    return [
        {"id": str(uuid.uuid4()), "email": f"user{n}@example.com", **values} for n in range(number)
    ]


def counts(totals: Totals) -> tuple[int, int, int, int]:
    return totals.created, totals.updated, totals.skipped, totals.rejected


def profile_of(email: str) -> Profile:
    """The one profile of the account, on the shard that owns it and nowhere else."""
    key = User.objects.get(email=email).pk
    found = [
        profile
        for shard in conf.shards()
        for profile in Profile.objects.using(shard).filter(pk=key)
    ]
    assert [profile._state.db for profile in found] == [get_shard_for_user_id(key)], found
    return found[0]


def empty() -> None:
    User.objects.all()._raw_delete("default")
    for shard in conf.shards():
        Profile.objects.using(shard).all()._raw_delete(shard)


def number_of_profiles() -> int:
    return sum(Profile.objects.using(shard).count() for shard in conf.shards())
