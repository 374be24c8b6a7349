"""Six users, two on each of three shards, and the same rows in one plain database beside them."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, ClassVar
from uuid import UUID

from django.db import connections, models
from django.test import SimpleTestCase, TestCase

from sharding import get_shard_for_user_id, slot_cache
from tests.sharding.methods.wire import statements, watched
from users.models import Activity, Profile

__all__ = [
    *(
        "ADA",
        "BOB",
        "CY",
        "DEE",
        "EVE",
        "FAY",
        "FREE_ID",
        "JOINED",
        "OWNERS",
        "REFERENCE",
        "SHARDS",
    ),
    *(
        "CommittedWorldTestCase",
        "WorldTestCase",
        "activities",
        "activity_id",
        "counts",
        "plain",
        "profiles",
        "sleep_at",
    ),
]

REFERENCE = "default"
SHARDS = ("shard_1", "shard_2", "shard_3")


def _user_id(slot: int, number: int) -> UUID:
    return UUID(f"{slot:08x}-0000-4000-8000-{number:012x}")


# The slots of three shards: 0-333, 334-666, 667-999. By id, not by date, ADA comes first.
ADA, DEE = _user_id(10, 1), _user_id(20, 4)
BOB, EVE = _user_id(410, 2), _user_id(420, 5)
CY, FAY = _user_id(810, 3), _user_id(820, 6)
OWNERS = {
    ADA: "shard_1",
    DEE: "shard_1",
    BOB: "shard_2",
    EVE: "shard_2",
    CY: "shard_3",
    FAY: "shard_3",
}
FREE_ID = _user_id(500, 7)  # of nobody yet, on shard_2

_START = datetime(2024, 1, 31, 12, tzinfo=UTC)
_USERS = [
    # id, name, country, plan, joined on day, number of activities
    (ADA, "Ada", "CH", "pro", 5, 3),
    (BOB, "Bob", "DE", "free", 3, 2),
    (CY, "Cy", "CH", "team", 4, 1),
    (DEE, "Dee", "FR", "free", 1, 2),
    (EVE, "Eve", "DE", "pro", 6, 0),
    (FAY, "Fay", "CH", "free", 2, 0),
]

JOINED = {user_id: _START + timedelta(days=day) for user_id, _, _, _, day, _ in _USERS}


def profiles() -> list[Profile]:
    """New objects of all profiles."""
    return [
        Profile(
            user_id=user_id,
            display_name=name,
            country=country,
            plan=plan,
            created_at=JOINED[user_id],
        )
        for user_id, name, country, plan, _, _ in _USERS
    ]


def activities() -> list[Activity]:
    """New objects of all activities: the first of each user is a login, the others are orders."""
    return [
        Activity(
            id=activity_id(user_id, number),
            profile_id=user_id,
            kind="order" if number else "login",
            amount=Decimal(10 * number + day) / 4,
            occurred_at=JOINED[user_id] + timedelta(hours=number),
        )
        for user_id, _, _, _, day, count in _USERS
        for number in range(count)
    ]


def activity_id(user_id: UUID, number: int) -> UUID:
    """The id of one of a user's activities."""
    return UUID(int=(user_id.int & 0xFF) << 96 | 0x4000_8000_0000_0000_0000 | number)


def counts(model: Any) -> dict[str, int]:
    """How many rows each shard has."""
    return {alias: plain(model, alias).count() for alias in SHARDS}


def plain(model: type[models.Model], alias: str = REFERENCE) -> "models.QuerySet[Any]":
    """Django's own queryset on one database; the reference holds all rows."""
    return models.QuerySet(model, using=alias)


def sleep_at(user_id: UUID, seconds: float = 8) -> models.Case:
    """An expression that takes long where a profile is."""
    sleep = models.Func(
        models.Value(seconds),
        function="pg_sleep",
        template="%(function)s(%(expressions)s)::text",
        output_field=models.CharField(),
    )
    return models.Case(models.When(pk=user_id, then=sleep), default=models.Value(""))


class CommittedWorldTestCase(SimpleTestCase):
    """Has the rows on the shards, for tests of transactions: these are not inside one."""

    databases = "__all__"

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        slot_cache.current()
        cls.addClassCleanup(_empty_shards)
        _fill_shards()

    def setUp(self) -> None:
        self.addCleanup(connections.close_all)


def _fill_shards() -> None:
    for model, objects in ((Profile, profiles), (Activity, activities)):
        for alias in SHARDS:
            mine = [each for each in objects() if OWNERS[each.shard_key_value] == alias]
            plain(model, alias).bulk_create(mine)


def _empty_shards() -> None:
    for alias in SHARDS:
        plain(Profile, alias).delete()
    connections.close_all()


class WorldTestCase(TestCase):
    """Has the rows. With `in_turn`, something watches the connections (see wire)."""

    databases = "__all__"
    in_turn: ClassVar[bool] = False

    @classmethod
    def setUpTestData(cls) -> None:
        slot_cache.current()  # else the first query would read it
        with connections[REFERENCE].schema_editor() as editor:
            for model in (Profile, Activity):
                editor.create_model(model)
                # They would write to tables of the shards.
                editor.execute(f"ALTER TABLE {model._meta.db_table} DISABLE TRIGGER USER")
        for model, objects in ((Profile, profiles), (Activity, activities)):
            plain(model).bulk_create(objects())
        _fill_shards()

    def setUp(self) -> None:
        stack = ExitStack()
        self.addCleanup(stack.close)
        if self.in_turn:
            stack.enter_context(watched())

    @contextmanager
    def assert_touches(self, *aliases: str, times: int | None = None) -> Iterator[None]:
        """Fail unless the block sends statements to exactly these databases, so many to each."""
        with statements() as sent:
            yield
        asked = {alias: sql for alias, sql in sent.items() if sql}
        self.assertEqual(sorted(asked), sorted(aliases), asked)
        for alias in aliases if times is not None else ():
            self.assertEqual(len(asked[alias]), times, asked[alias])

    def assert_on_shards(self, model: type[models.Model]) -> None:
        """Fail unless every row of the model is on the shard that owns its key, and there alone."""
        for alias in SHARDS:
            for row in plain(model, alias):
                self.assertEqual(get_shard_for_user_id(row.shard_key_value), alias, row)
