"""Comparing everything, and copying what differs."""

from typing import Any
from unittest import mock

from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from psycopg import errors
from psycopg.sql import SQL

from analytics.sync import SyncFailed, SyncResult, batch, full, statements, sync_source, verify
from analytics.sync.batch import begin
from analytics.sync.buckets import compare
from tests.analytics.sync import SOAK
from tests.analytics.sync.steps import at
from tests.analytics.sync.support import (
    USER,
    SyncTestCase,
    add_users,
    connect,
    copies,
    execute,
    key,
    logged,
    rows,
    sync,
)

MANY = [key(number) for number in range(1, 1201)]
TAMPER = "UPDATE analytics_useranalytics SET name = 'tampered' WHERE user_id = ANY(%s)"
REMOVE = "DELETE FROM analytics_useranalytics WHERE user_id = ANY(%s)"
EXTRA = (
    "INSERT INTO analytics_useranalytics (user_id, email, name, is_active, is_staff, date_joined)"
    " SELECT id, 'extra@example.com', '', true, true, now() FROM unnest(%s::uuid[]) AS id"
)


class ReconcileTestCase(SyncTestCase):
    aliases = ("default", "analytics")

    def calls(self, name: str) -> Any:
        """Count the calls of one of the ways to copy."""
        return self.enterContext(mock.patch.object(full, name, wraps=getattr(full, name)))


class VerifyTests(ReconcileTestCase):
    def differing(self) -> list[object]:
        return [user_id for _, keys in verify(USER) for user_id in keys]

    def test_nothing_differs(self) -> None:
        self.assertEqual(list(verify(USER)), [])
        add_users(MANY)
        sync()
        self.assertEqual(list(verify(USER)), [])
        found = compare(USER)
        self.assertEqual((found.rows, found.copies, found.differing_rows), (1200, 1200, 0))

    def test_each_kind_of_difference_by_its_id(self) -> None:
        add_users(MANY)
        sync()
        for statement, keys in (
            (TAMPER, [MANY[7]]),
            (REMOVE, [MANY[700]]),
            (EXTRA, [key(5000)]),
            (TAMPER, [MANY[1], MANY[2], MANY[900]]),
        ):
            with self.subTest(statement):
                execute("analytics", statement, [keys])
                before = copies()
                self.assertEqual(self.differing(), sorted(keys))
                self.assertEqual(copies(), before)
                sync(full=True)
                self.assertEqualSides()

    def test_two_that_differ_in_one_bucket(self) -> None:
        together = [key(number, byte=7) for number in range(300, 330)]
        add_users([*MANY, *together])
        sync()
        execute("analytics", TAMPER, [together[:1]])
        execute("analytics", REMOVE, [together[1:2]])
        execute("analytics", EXTRA, [[key(9000, byte=7)]])
        ((_, keys),) = verify(USER)
        self.assertEqual(keys, sorted([*together[:2], key(9000, byte=7)]))

    def test_values_swapped_within_a_bucket_are_seen(self) -> None:
        """Sums of what is hashed column by column would be equal."""
        pair = [key(1, byte=7), key(2, byte=7)]
        add_users(pair[:1], "one")
        add_users(pair[1:], "two")
        sync()
        swapped = "CASE name WHEN 'one' THEN 'two' ELSE 'one' END"
        execute("analytics", f"UPDATE analytics_useranalytics SET name = {swapped}")
        self.assertEqual(self.differing(), pair)

    def test_first_and_last_ids(self) -> None:
        ends = [key(0, byte=0), key(2**120 - 1, byte=255), key(2**120 - 1, byte=0)]
        add_users([*ends, *MANY])
        sync()
        execute("analytics", REMOVE, [ends])
        self.assertEqual(self.differing(), sorted(ends))
        sync(full=True)
        self.assertEqualSides()

    versions = st.dictionaries(
        st.builds(key, st.integers(0, 9), byte=st.sampled_from([0, 1, 128, 255])),
        st.sampled_from(["a", "b"]),
        max_size=12,
    )

    def test_random_tables(self) -> None:
        @hypothesis_settings(max_examples=500 if SOAK else 15, deadline=None)
        @given(here=self.versions, there=self.versions)
        def check(here: dict[Any, str], there: dict[Any, str]) -> None:
            self.store(there)
            sync(full=True)
            with connect("default", autocommit=True) as unlogged:
                unlogged.execute("ALTER TABLE users_user DISABLE TRIGGER USER")
                self.store(here)
                unlogged.execute("ALTER TABLE users_user ENABLE TRIGGER USER")
            differing = {k for k in here.keys() | there.keys() if here.get(k) != there.get(k)}
            self.assertEqual(set(self.differing()), differing)
            sync(full=True)
            self.assertEqualSides()

        check()

    def store(self, versions: dict[Any, str]) -> None:
        execute("default", "DELETE FROM users_user")
        for version in ("a", "b"):
            add_users([k for k, v in versions.items() if v == version], version)


class ReconcileTests(ReconcileTestCase):
    def test_few_differences_are_copied_by_ranges_of_ids(self) -> None:
        add_users(MANY)
        sync()
        execute("analytics", TAMPER, [MANY[:3]])
        execute("analytics", EXTRA, [[key(5000)]])
        pages, ranges = self.calls("sync_pages"), self.calls("sync_ranges")
        self.assertEqual(sync(full=True), SyncResult(upserted=3, deleted=1, unchanged=1197))
        self.assertEqual((pages.call_count, ranges.call_count), (0, 1))
        self.assertEqualSides()

    def test_an_empty_target_is_copied_by_pages(self) -> None:
        add_users(MANY)
        pages, ranges = self.calls("sync_pages"), self.calls("sync_ranges")
        comparisons = self.calls("compare")
        self.enterContext(mock.patch.object(full, "_PAGES", 4))
        self.assertEqual(sync().upserted, 1200)
        self.assertEqual(comparisons.call_count, 0)
        self.assertGreater(pages.call_count, 3)
        self.assertTrue(pages.call_args.kwargs["into_empty"])
        self.assertEqual(ranges.call_count, 0)
        self.assertEqualSides()

    def test_many_differences_beside_stale_copies(self) -> None:
        add_users(MANY)
        sync()
        execute("analytics", TAMPER, [MANY])
        execute("analytics", EXTRA, [[key(number) for number in range(5000, 5010)]])
        pages = self.calls("sync_pages")
        self.assertEqual(sync(full=True).deleted, 10)
        self.assertFalse(pages.call_args.kwargs["into_empty"])
        self.assertEqualSides()

    def test_an_empty_source_empties_the_copies(self) -> None:
        execute("analytics", EXTRA, [MANY])
        self.assertEqual(sync(), SyncResult(deleted=1200))
        self.assertEqualSides()

    def test_rows_that_move_to_later_pages_are_merged(self) -> None:
        add_users(MANY)
        execute("default", "DELETE FROM users_userchange")
        self.enterContext(mock.patch.object(full, "_PAGES", 4))
        batches = sync_source(USER)
        while len(copies()) < 100:
            next(batches)
        # Not a word of it in the log.
        execute("default", "UPDATE users_user SET password = 'x'")
        self.assertLess(len(copies()), 1200)
        merged = mock.patch.object(batch, "_merge", wraps=batch._merge)
        with merged as merges:
            for _ in batches:
                pass
        self.assertGreater(merges.call_count, 0)
        self.assertEqualSides()

    def test_a_rewrite_between_two_batches_begins_the_pages_again(self) -> None:
        add_users(MANY)
        self.enterContext(mock.patch.object(full, "_PAGES", 4))
        pages = self.calls("sync_pages")
        batches = sync_source(USER)
        while len(copies()) < 100:
            next(batches)
        execute("default", "VACUUM FULL users_user")
        for _ in batches:
            pass
        firsts = [call.args[1] for call in pages.call_args_list]
        self.assertEqual(firsts[:3], [0, 4, 0])
        self.assertEqualSides()

    def test_what_changes_meanwhile_comes_from_the_log(self) -> None:
        add_users(MANY)
        self.enterContext(mock.patch.object(full, "_PAGES", 4))
        for number, _ in enumerate(sync_source(USER)):
            execute("default", "DELETE FROM users_user WHERE id = %s", [MANY[number]])
            execute("default", "UPDATE users_user SET name = 'x' WHERE id = %s", [MANY[-number]])
            add_users([key(2000 + number)])
            if number > 20:
                break
        self.assertHeals()

    def test_one_that_stopped_is_owed(self) -> None:
        add_users(MANY)
        next(sync_source(USER))
        self.assertIn("nothing was synced yet", begin(USER).disagreement)
        with mock.patch.object(full, "_PAGES", 4):
            batches = sync_source(USER)
            while not copies():
                next(batches)
        self.assertIn("interrupted", begin(USER).disagreement)
        self.assertHeals()


class RewriteTests(ReconcileTestCase):
    """A rewrite that commits between the snapshot and the reading of the rows."""

    REWRITE = "ALTER TABLE users_user ADD COLUMN junk float8 DEFAULT random()"

    def setUp(self) -> None:
        super().setUp()
        self.addCleanup(execute, "default", "ALTER TABLE users_user DROP COLUMN IF EXISTS junk")
        add_users(MANY[:10])
        sync()
        execute("default", "UPDATE users_user SET name = 'new'")

    def rewrite(self) -> None:
        with connect("default", autocommit=True) as client:
            client.execute("SET lock_timeout = '10ms'")
            client.execute(self.REWRITE)

    def sync_while_rewriting(self) -> bool:
        """Sync, with a rewrite after the snapshot was taken; return whether it was let through."""
        let_through: list[bool] = []

        def oldest(*args: Any) -> Any:
            entries = original(*args)
            if entries and not let_through:
                try:
                    self.rewrite()
                    let_through.append(True)
                except errors.LockNotAvailable:
                    let_through.append(False)
            return entries

        original = batch._oldest
        with mock.patch.object(batch, "_oldest", oldest):
            sync()
        return let_through[0]

    def test_it_has_to_wait(self) -> None:
        self.assertFalse(self.sync_while_rewriting())
        self.assertEqualSides()
        self.rewrite()
        self.assertHeals()

    def test_without_the_lock_every_user_looks_deleted(self) -> None:
        """So that the test above is known to be able to fail."""
        with mock.patch.object(statements, "lock_source", return_value=SQL("SELECT 1")):
            self.assertTrue(self.sync_while_rewriting())
        self.assertEqual((len(rows()), len(copies())), (10, 0))


class LongLogTests(ReconcileTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.enterContext(self.settings(SYNC_LOG_LIMIT=5))
        add_users(MANY[:3])
        sync()

    def test_a_log_as_long_as_the_limit_is_applied(self) -> None:
        add_users(MANY[3:8])
        marks = self.calls("mark")
        sync()
        self.assertEqual(marks.call_count, 0)
        self.assertEqualSides()

    def test_a_longer_one_is_replaced_by_a_reconcile(self) -> None:
        add_users(MANY[3:9])
        marks = self.calls("mark")
        sync()
        self.assertGreater(marks.call_count, 0)
        self.assertEqualSides()

    def test_a_stop_right_after_leaves_the_reconcile_owed(self) -> None:
        add_users(MANY[3:9])

        def stop() -> None:
            raise SyncFailed("stopped")

        with at(("after", "finish"), stop), self.assertRaisesRegex(SyncFailed, "stopped"):
            sync()
        self.assertEqual(len(logged()), 6)
        batches = sync_source(USER)
        while logged():
            next(batches)
        batches.close()  # type: ignore[attr-defined]
        self.assertIn("interrupted", begin(USER).disagreement)
        self.assertHeals()

    def test_a_writer_that_does_not_end_keeps_the_log(self) -> None:
        add_users(MANY[3:9])
        with connect("default") as writer:
            writer.execute("UPDATE users_user SET name = 'late' WHERE id = %s", [MANY[0]])
            with self.assertRaisesRegex(SyncFailed, "lock timeout"):
                sync()
            self.assertEqual(len(logged()), 6)
            self.assertNothingLost()
        self.assertHeals()
        self.assertEqual(copies()[MANY[0]][1], "late")
