"""The first load of many rows: by pages, into a table without indexes, and counted at its end."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock
from uuid import UUID

from django.db import connections

from analytics.sync import Overtaken, Progress, Source, batch, full, indexes, sync_source
from analytics.sync.batch import begin, replace_log
from analytics.sync.described import PROFILES
from analytics.sync.run import sync_key
from tests.analytics.sync.support import (
    SHARD,
    USER,
    SyncTestCase,
    add_profiles,
    add_users,
    clear,
    connect,
    copies,
    execute,
    key,
    owned_key,
    sync,
)

MANY = [key(number) for number in range(1, 1201)]
MOVED = MANY[600]
OTHER_SHARD = Source(PROFILES, "shard_2")
INDEXES = "SELECT indexname FROM pg_indexes WHERE tablename = 'analytics_useranalytics'"
MOVE_A_ROW = "UPDATE users_user SET password = 'x' WHERE id = %s"  # nothing that is logged


def copies_of(user: UUID) -> int:
    ((number,),) = execute(
        "analytics", "SELECT count(*) FROM analytics_useranalytics WHERE user_id = %s", [user]
    )
    return number


class FirstLoadTestCase(SyncTestCase):
    aliases = ("default", "analytics", "shard_1", "shard_2")

    def setUp(self) -> None:
        super().setUp()
        add_users(MANY)
        execute("default", "DELETE FROM users_userchange")  # or it would bring what is missing
        self.enterContext(mock.patch.object(full, "_PAGES", 4))
        self.indexes = self.names()
        self.assertEqual(len(self.indexes), 3)

    def names(self) -> set[str]:
        return {name for (name,) in execute("analytics", INDEXES)}

    def begun(self) -> Iterator[Progress]:
        """A first load that has copied its first pages, and more to come."""
        batches = sync_source(USER)
        while not copies():
            next(batches)
        return batches

    def assertIndexed(self) -> None:
        self.assertEqual(self.names(), self.indexes)
        self.assertFalse(indexes.are_dropped(USER))


class CountTests(FirstLoadTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.compared = self.enterContext(mock.patch.object(full, "compare", wraps=full.compare))

    def move_to_an_earlier_page(self) -> None:
        """Change a row of a full page, in a table whose first pages have room."""
        execute("default", MOVE_A_ROW, [MOVED])
        place = "SELECT (ctid::text::point)[0]::int FROM users_user WHERE id = %s"
        ((page,),) = execute("default", place, [MOVED])
        reached = begin(USER).reconcile
        assert reached
        self.assertLess(page, reached["page"])

    def make_room(self) -> None:
        execute("default", "DELETE FROM users_user WHERE id = ANY(%s)", [MANY[:300]])
        execute("default", "DELETE FROM users_userchange")
        execute("default", "VACUUM users_user")

    def test_equal_counts_suffice(self) -> None:
        for number, _ in enumerate(self.begun()):
            execute("default", "DELETE FROM users_user WHERE id = %s", [MANY[number]])
            execute("default", "UPDATE users_user SET name = 'x' WHERE id = %s", [MANY[-number]])
            add_users([key(2000 + number)])
            if number > 20:
                break
        sync()
        self.assertEqual(self.compared.call_count, 0)
        self.assertEqualSides()

    def test_a_row_that_was_missed(self) -> None:
        self.make_room()
        batches = self.begun()
        self.move_to_an_earlier_page()
        for _ in batches:
            pass
        self.assertEqual(self.compared.call_count, 1)
        self.assertEqualSides()

    def test_a_row_that_came_twice(self) -> None:
        """Without a key, nothing refuses it."""
        batches = self.begun()
        execute("default", MOVE_A_ROW, [MANY[0]])  # from the first page to the last
        self.assertEqual(self.names(), set())
        for _ in batches:
            pass
        self.assertEqual(self.compared.call_count, 1)
        self.assertEqualSides()
        self.assertIndexed()

    def test_a_row_that_came_twice_before_somebody_needs_the_key(self) -> None:
        batches = self.begun()
        execute("default", MOVE_A_ROW, [MANY[0]])
        while copies_of(MANY[0]) < 2:
            next(batches)
        sync_key(USER, MANY[0])
        self.assertEqual(copies_of(MANY[0]), 1)
        for _ in batches:
            pass
        self.assertEqualSides()

    def test_a_row_that_was_missed_and_a_long_log(self) -> None:
        """Of a log too long to look at whole, the numbers may be equal by chance: as they are here.

        One row has no copy, and one that is logged is left out among the rows alone.
        """
        self.make_room()
        self.enterContext(mock.patch.object(batch, "_LOGGED", 2))
        batches = self.begun()
        changed = list(copies())[:3]
        self.move_to_an_earlier_page()
        execute("default", "UPDATE users_user SET name = 'x' WHERE id = ANY(%s)", [changed])
        for _ in batches:
            pass
        self.assertEqual(self.compared.call_count, 1)
        self.assertEqualSides()

    def test_without_counting_it_is_lost(self) -> None:
        """So that the test above is known to be able to fail."""
        self.make_room()
        batches = self.begun()
        self.move_to_an_earlier_page()
        with mock.patch.object(full, "nothing_is_missing", return_value=True):
            for _ in batches:
                pass
        self.assertFalse(MOVED in copies(), "the row came by itself")

    def test_one_row_missed_and_one_that_came_by_itself(self) -> None:
        """The numbers are equal by chance; but somebody wrote meanwhile."""
        self.make_room()
        batches = self.begun()
        self.move_to_an_earlier_page()
        count = batch.nothing_is_missing

        def meanwhile(turn: Any) -> bool:
            reading = batch._reading

            @contextmanager
            def read(source: Any) -> Iterator[Any]:
                with reading(source) as found:
                    yield found
                with mock.patch.object(batch, "_reading", reading):
                    add_users([key(2000)])
                    batch.sync_keys(begin(USER), [key(2000)])

            with mock.patch.object(batch, "_reading", read):
                equal = count(turn)
            self.assertTrue(equal)
            return equal

        with (
            mock.patch.object(full, "nothing_is_missing", meanwhile),
            self.assertRaises(Overtaken),
        ):
            for _ in batches:
                pass
        self.assertHeals()

    def test_a_log_that_was_emptied_meanwhile(self) -> None:
        batches = self.begun()
        execute("default", "UPDATE users_user SET name = 'new'")
        replace_log(begin(USER))
        with self.assertRaisesRegex(Overtaken, "undone meanwhile"):
            for _ in batches:
                pass
        self.assertHeals()
        self.assertIndexed()

    def test_a_side_that_was_restored_meanwhile(self) -> None:
        """Analytics to a moment of the load, and so the log no more says what was changed since."""
        batches = self.begun()
        saved = execute("analytics", "SELECT token FROM analytics_synccheckpoint")
        execute("default", "UPDATE users_user SET name = 'new'")
        next(batches)
        batches.close()  # type: ignore[attr-defined]
        execute("default", "DELETE FROM users_userchange")
        execute("analytics", "UPDATE analytics_synccheckpoint SET token = %s", [saved[0][0]])
        execute("default", "UPDATE analytics_syncposition SET claimed = applied")
        self.assertTrue(begin(USER).torn)
        sync()
        self.assertGreater(self.compared.call_count, 0)
        self.assertEqualSides()

    def test_a_primary_that_was_restored_meanwhile(self) -> None:
        """The checkpoint says still how far the load is, but other rows were there then."""
        batches = self.begun()
        saved = execute("default", "SELECT claimed, applied FROM analytics_syncposition")
        next(batches)
        execute("default", "UPDATE users_user SET name = 'restored'")
        execute("default", "DELETE FROM users_userchange")
        execute("default", "UPDATE analytics_syncposition SET claimed = %s, applied = %s", saved[0])
        with self.assertRaisesRegex(Overtaken, "undone meanwhile"):
            for _ in batches:
                pass
        self.assertHeals()


class IndexTests(FirstLoadTestCase):
    def test_dropped_at_first_and_built_at_last(self) -> None:
        batches = self.begun()
        self.assertEqual(self.names(), set())
        self.assertTrue(indexes.are_dropped(USER))
        told = [progress.where for progress in batches]
        self.assertIn("building the indexes", told)
        self.assertIndexed()
        self.assertEqualSides()

    def test_of_one_that_stopped_they_are_built_by_the_next(self) -> None:
        batches = self.begun()
        batches.close()  # type: ignore[attr-defined]
        self.assertEqual(self.names(), set())
        sync()
        self.assertIndexed()
        self.assertEqualSides()

    def test_stopped_before_the_first_page(self) -> None:
        indexes.drop(USER)
        sync()
        self.assertIndexed()

    def test_one_that_somebody_built_meanwhile(self) -> None:
        for statement in (
            f"CREATE INDEX {min(self.indexes)} ON analytics_useranalytics (date_joined)",
            "ALTER TABLE analytics_useranalytics ADD PRIMARY KEY (user_id)",
        ):
            with self.subTest(statement):
                batches = self.begun()
                execute("analytics", statement)
                for _ in batches:
                    pass
                self.assertIndexed()
                clear(self.aliases)
                add_users(MANY)

    def test_whoever_needs_the_key_builds_it(self) -> None:
        batches = self.begun()
        execute("default", "UPDATE users_user SET name = 'new' WHERE id = %s", [MANY[-1]])
        for user in (MANY[0], MANY[-1], key(5000)):
            sync_key(USER, user)
        self.assertIndexed()
        self.assertEqual(copies()[MANY[-1]][1], "new")
        for _ in batches:
            pass
        self.assertEqualSides()

    def test_so_does_the_sync_of_another_source(self) -> None:
        """All shards are copied to one table."""
        add_profiles("shard_1", [owned_key("shard_1")])
        indexes.drop(SHARD)
        self.assertTrue(indexes.are_dropped(OTHER_SHARD))
        self.assertFalse(indexes.are_dropped(USER))
        add_profiles("shard_2", [owned_key("shard_2")])
        execute("shard_2", "DELETE FROM users_profilechange")
        sync(OTHER_SHARD)
        execute("shard_2", "UPDATE users_profile SET plan = 'pro'")
        sync(OTHER_SHARD)
        self.assertFalse(indexes.are_dropped(SHARD))
        self.assertEqualSides(OTHER_SHARD)
        sync(SHARD)
        self.assertEqualSides(SHARD)

    def test_a_table_whose_key_is_referred_to_keeps_them(self) -> None:
        refers = "CREATE TABLE refers (copy uuid REFERENCES analytics_useranalytics)"
        execute("analytics", refers)
        self.addCleanup(execute, "analytics", "DROP TABLE refers")
        self.begun()
        self.assertIndexed()

    def test_few_rows_keep_them(self) -> None:
        with mock.patch.object(full, "_PAGES", 8000):
            self.begun()
        self.assertIndexed()

    def test_a_table_with_copies_keeps_them(self) -> None:
        add_profiles("shard_1", [owned_key("shard_1")])
        execute(
            "analytics",
            "INSERT INTO analytics_profileanalytics"
            " (user_id, shard, country, plan, created_at, updated_at)"
            " VALUES (%s, 'shard_2', '', 'free', now(), now())",
            [owned_key("shard_2")],
        )
        indexes.drop(SHARD)
        self.assertFalse(indexes.are_dropped(SHARD))

    def test_a_table_that_is_used_just_now_keeps_them(self) -> None:
        with connect("analytics") as reader:
            reader.execute("SELECT FROM analytics_useranalytics")
            self.begun()
            self.assertEqual(self.names(), self.indexes)

    def test_a_role_that_does_not_own_the_table_keeps_them(self) -> None:
        execute("analytics", "DROP ROLE IF EXISTS reader; CREATE ROLE reader")
        with connections["analytics"].cursor() as cursor:
            cursor.execute("GRANT SELECT ON analytics_useranalytics TO reader; SET ROLE reader")
            self.addCleanup(execute, "analytics", "DROP OWNED BY reader; DROP ROLE reader")
            try:
                indexes.drop(USER)
            finally:
                cursor.execute("RESET ROLE")
        self.assertIndexed()
