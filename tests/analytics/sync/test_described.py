"""Describing what is synced: a model of one's own, as in docs/sync.md, and unusual columns."""

import re
from collections.abc import Iterable
from dataclasses import replace
from decimal import Decimal
from textwrap import dedent
from typing import Any

from django.conf import settings
from django.db import connections, models
from django.db.models.functions import Now
from django.test.utils import isolate_apps
from psycopg.sql import SQL

from analytics.sync import Source, SyncResult, sync_key, verify
from analytics.sync.batch import begin
from analytics.sync.described import PROFILES, USERS, Synced
from sharding.change_log import Change, ShardChange, change_triggers
from sharding.models import ShardedModel
from tests.analytics.sync.support import (
    USER,
    SyncTestCase,
    add_users,
    copies,
    execute,
    key,
    owned_key,
    sync,
)

NAMES = {
    "Change": Change,
    "Now": Now,
    "PROFILES": PROFILES,
    "ShardChange": ShardChange,
    "ShardedModel": ShardedModel,
    "Synced": Synced,
    "USERS": USERS,
    "change_triggers": change_triggers,
    "models": models,
}


class DescribedTestCase(SyncTestCase):
    def make(self, alias: str, *tables: type[models.Model]) -> None:
        """Make tables for this test, with their triggers."""
        with connections[alias].schema_editor() as editor:
            for table in tables:
                editor.create_model(table)
                self.addCleanup(execute, alias, f"DROP TABLE {table._meta.db_table} CASCADE")
        for table in tables:
            for trigger in getattr(table._meta, "triggers", ()):
                execute(alias, trigger.compile(table).install_sql)  # a router knows them not

    def assertSynced(self, source: Source, expected: SyncResult) -> None:
        self.assertEqual(sync(source), expected)
        self.assertEqualSides(source)


class DocumentedTests(DescribedTestCase):
    def described(self) -> dict[str, Any]:
        """Run the lines of docs/sync.md, each file's as if they stood in one of our apps."""
        text = (settings.BASE_DIR / "docs" / "sync.md").read_text()
        section = text.partition("## A model of your own")[2].partition("\n## ")[0]
        lines = dedent("".join(re.findall(r"(?m)^(?: {4}.*)?\n", section)))
        parts = re.split(r"(?m)^# (\w+)/.*\n", lines)[1:]
        names: dict[str, Any] = {**NAMES}
        for app, code in zip(parts[::2], parts[1::2], strict=True):
            names["__name__"] = f"{'users' if app == 'shop' else app}.models"
            exec(code.replace("shop_", "users_"), names)
        return names

    @isolate_apps("users", "analytics")
    def test_the_lines_of_the_documentation(self) -> None:
        names = self.described()
        self.assertEqual(names["SYNCED"], (USERS, PROFILES, names["INVOICES"]))
        self.make("shard_1", names["InvoiceChange"], names["Invoice"])
        self.make("analytics", names["InvoiceAnalytics"])
        source = Source(names["INVOICES"], "shard_1")
        ids = [owned_key("shard_1", number) for number in range(3)]
        execute(
            "shard_1",
            "INSERT INTO users_invoice (user_id, total) SELECT id, 1 FROM unnest(%s::uuid[]) AS id",
            [ids],
        )
        self.assertSynced(source, SyncResult(upserted=3, unchanged=3))
        execute("shard_1", "UPDATE users_invoice SET total = 2.5 WHERE user_id = %s", [ids[0]])
        execute("shard_1", "DELETE FROM users_invoice WHERE user_id = %s", [ids[1]])
        self.assertSynced(source, SyncResult(upserted=1, deleted=1))
        stored = execute(
            "analytics", "SELECT user_id, shard, total FROM analytics_invoiceanalytics"
        )
        self.assertCountEqual(
            stored,
            [(ids[0], "shard_1", Decimal("2.50")), (ids[2], "shard_1", Decimal("1.00"))],
        )


class OtherColumnsTests(SyncTestCase):
    """A column that is copied from now on: no row that is there since before is in the log."""

    aliases = ("default", "analytics")

    def setUp(self) -> None:
        super().setUp()
        fewer = {name: name for name in USERS.columns if name != "last_login"}
        add_users([key(1), key(2)])
        execute("default", "UPDATE users_user SET last_login = now()")
        sync(Source(replace(USERS, columns=fewer), "default"))
        self.assertEqual([copy[-1] for copy in copies().values()], [None, None])

    def test_everything_is_compared(self) -> None:
        self.assertEqual(begin(USER).disagreement, "other columns are copied than before")
        self.assertHeals()

    def test_also_after_one_user_was_copied(self) -> None:
        sync_key(USER, key(1))
        self.assertHeals()


class Column(models.TextField):
    """A column of any type of the server's."""

    def __init__(self, kind: str = "text") -> None:
        super().__init__()
        self.kind = kind

    def db_type(self, connection: Any) -> str:
        return self.kind


class UnusualTypesTests(DescribedTestCase):
    """Whose values have no hash, or another one on each server."""

    aliases = ("default", "analytics")

    @isolate_apps("users", "analytics")
    def test_they_are_compared_as_text(self) -> None:
        self.make_moods("default", ["glad", "sad"])
        self.make_moods("analytics", ["sad", "unknown", "glad"])

        class ThingChange(Change):
            class Meta:
                app_label = "users"

        class Thing(models.Model):  # noqa: DJ008
            user_id = models.UUIDField(primary_key=True)
            mood = Column("mood")
            flags = Column("bit(4)")
            price = Column("money")
            notes = Column("json")

            class Meta:
                app_label = "users"
                triggers = change_triggers(
                    "users_thingchange", key="user_id", columns=["mood", "flags", "price", "notes"]
                )

        class ThingAnalytics(models.Model):  # noqa: DJ008
            user_id = models.UUIDField(primary_key=True)
            mood = Column("mood")
            flags = Column("bit(4)")
            price = Column("money")
            notes = Column("json")
            synced_at = models.DateTimeField(db_default=Now())

            class Meta:
                app_label = "analytics"

        self.make("default", ThingChange, Thing)
        self.make("analytics", ThingAnalytics)
        columns = {name: name for name in ("mood", "flags", "price", "notes")}
        things = Source(Synced("things", Thing, ThingChange, ThingAnalytics, columns), "default")
        ids = [owned_key("shard_1", number) for number in range(3)]
        execute(
            "default",
            "INSERT INTO users_thing SELECT id, 'glad', B'0101', 12.5, '{}'"
            " FROM unnest(%s::uuid[]) AS id",
            [ids],
        )
        self.assertSynced(things, SyncResult(upserted=3, unchanged=3))
        for change in ("mood = 'sad'", "flags = B'1111'", "price = 3", "notes = '[1]'"):
            with self.subTest(change):
                execute("default", f"UPDATE users_thing SET {change} WHERE user_id = %s", [ids[0]])
                self.assertEqual(list(differing(things)), [ids[0]])
                self.assertSynced(things, SyncResult(upserted=1))

    def make_moods(self, alias: str, values: Iterable[str]) -> None:
        """Make an enum; where the order is another one, so are the server's numbers."""
        labels = SQL(", ").join(SQL(f"'{value}'") for value in values)
        execute(alias, SQL("CREATE TYPE mood AS ENUM ({})").format(labels))
        self.addCleanup(execute, alias, "DROP TYPE mood CASCADE")


def differing(source: Source) -> Iterable[Any]:
    return (key for _, keys in verify(source) for key in keys)
