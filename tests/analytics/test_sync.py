"""Copying accounts and profiles to analytics, where nothing goes wrong but a server or a table.

What must hold when anything goes wrong at any moment is tested in tests.analytics.sync.
"""

from typing import Any
from unittest import mock
from uuid import uuid4

from django.db import connections
from psycopg.sql import SQL, Identifier

from analytics.models import ProfileAnalytics, UserAnalytics
from analytics.sync import SyncFailed, SyncResult, sources, statements, sync_user
from analytics.sync.batch import begin
from sharding.errors import DatabaseUnavailable, InvalidShardKey
from sharding.hashing import slot_for
from tests.analytics.sync.support import (
    USER,
    SyncTestCase,
    add_profiles,
    copies,
    execute,
    owned_key,
    rows,
    sync,
)
from tests.support import hand_over, server_down
from users.models import User

SHARDS = [source for source in sources() if source.alias.startswith("shard_")]


class AccountsTestCase(SyncTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.ada = User.objects.create_user("ada@example.com", "secret", name="Ada ☃\t\\N")
        self.bob = User.objects.create_user("bob@example.com", is_active=False, is_staff=True)
        User.objects.filter(pk=self.bob.pk).update(last_login=self.bob.date_joined)


class SyncTests(AccountsTestCase):
    def test_copies_every_account(self) -> None:
        self.assertEqual(sync(), SyncResult(upserted=2, unchanged=2))
        self.assertEqualSides()
        self.assertEqual(copies()[self.ada.pk][:2], ("ada@example.com", "Ada ☃\t\\N"))

    def test_copies_changes_and_leaves_the_rest_alone(self) -> None:
        sync()
        before = dict(UserAnalytics.objects.values_list("user_id", "synced_at"))
        User.objects.filter(pk=self.bob.pk).update(name="Bob", last_login=None)
        self.assertEqual(sync(), SyncResult(upserted=1))
        self.assertEqualSides()
        after = dict(UserAnalytics.objects.values_list("user_id", "synced_at"))
        self.assertEqual(after[self.ada.pk], before[self.ada.pk])
        self.assertGreater(after[self.bob.pk], before[self.bob.pk])

    def test_nothing_to_do_writes_nothing(self) -> None:
        sync()
        before = begin(USER)
        self.assertEqual(sync(), SyncResult())
        after = begin(USER)
        self.assertEqual((after.token, after.claimed), (before.token, before.claimed))

    def test_two_users_may_swap_their_emails(self) -> None:
        sync()
        for user, email in ((self.ada, "c"), (self.bob, "ada"), (self.ada, "bob")):
            User.objects.filter(pk=user.pk).update(email=f"{email}@example.com")
        sync(batch_size=1)
        self.assertEqualSides()

    def test_deletes_copies_of_accounts_that_are_gone(self) -> None:
        sync()
        self.bob.delete()
        self.assertEqual(sync(), SyncResult(deleted=1))
        self.assertEqualSides()

    def test_an_empty_primary_empties_analytics(self) -> None:
        sync()
        execute("default", "DELETE FROM users_user")
        self.assertEqual(sync(), SyncResult(deleted=2))
        self.assertEqualSides()

    def test_never_reads_the_password(self) -> None:
        for source in sources():
            read = statements.copy_keys(source, [self.ada.pk]).as_string()
            self.assertNotIn("password", read)
            self.assertNotIn("*", read)

    def test_the_types_of_both_tables_are_the_same(self) -> None:
        """Binary COPY writes what it reads, whatever the columns are."""
        for source in sources():
            here = column_types(source.alias, source.table, source.columns)
            there = column_types("analytics", source.target, source.target_columns)
            self.assertEqual(here, there)

    def test_small_batches_come_to_the_same(self) -> None:
        sync()
        execute("default", "UPDATE users_user SET name = 'x'")
        self.assertEqual(sync(batch_size=1), SyncResult(upserted=2))
        self.assertEqualSides()


class ProfileTests(SyncTestCase):
    def test_every_shard_s_profiles_with_its_alias(self) -> None:
        for source in SHARDS:
            add_profiles(source.alias, [owned_key(source.alias, n) for n in range(2)], "pro")
        for source in SHARDS:
            self.assertEqual(sync(source).upserted, 2)
        for source in SHARDS:
            self.assertEqualSides(source)
        self.assertEqual(
            sorted(ProfileAnalytics.objects.values_list("user_id", "shard")),
            [(user, source.alias) for source in SHARDS for user in sorted(rows(source))],
        )

    def test_a_reconcile_deletes_only_the_copies_of_its_own_shard(self) -> None:
        for source in SHARDS:
            add_profiles(source.alias, [owned_key(source.alias)])
            sync(source)
        with connections["shard_1"].cursor() as cursor:
            cursor.execute("TRUNCATE users_profile CASCADE")
        self.assertEqual(sync(SHARDS[0]).deleted, 1)
        self.assertEqual(len(copies(SHARDS[0])), 0)
        for source in SHARDS[1:]:
            self.assertEqualSides(source)

    def test_a_profile_that_moved_to_another_shard(self) -> None:
        first, second = SHARDS[:2]
        user_id = owned_key(first.alias)
        add_profiles(first.alias, [user_id])
        sync(first)
        execute(first.alias, "DELETE FROM users_profile")
        hand_over([slot_for(user_id)], first.alias, second.alias)
        add_profiles(second.alias, [user_id], "pro")
        self.addCleanup(hand_over, [slot_for(user_id)], second.alias, first.alias)
        sync(second)
        sync(first)
        self.assertEqual(list(copies(second)), [user_id])
        self.assertEqual(copies(first), {})

    def test_one_shard_that_is_down_does_not_matter_to_the_others(self) -> None:
        for source in SHARDS:
            add_profiles(source.alias, [owned_key(source.alias)])
        with server_down(SHARDS[1].alias):
            for source in SHARDS:
                if source is SHARDS[1]:
                    with self.assertRaises(DatabaseUnavailable):
                        sync(source)
                else:
                    sync(source)
                    self.assertEqualSides(source)
        sync(SHARDS[1])
        self.assertEqualSides(SHARDS[1])


class FailureTests(AccountsTestCase):
    def test_an_error_names_the_database_and_changes_nothing(self) -> None:
        sync()
        self.bob.delete()
        broken = SQL("DELETE FROM missing WHERE id = ANY(%s)")
        with (
            mock.patch.object(statements, "delete_keys", return_value=broken),
            self.assertRaisesRegex(SyncFailed, "Database analytics .*missing"),
        ):
            sync()
        self.assertEqual(UserAnalytics.objects.count(), 2)
        self.assertHeals()

    def test_an_error_of_the_primary_in_the_middle_of_the_copy_is_not_blamed_on_analytics(
        self,
    ) -> None:
        sync()
        self.bob.delete()
        failing = SQL("COPY (SELECT 1 / (2 - g) FROM generate_series(1, 3) g) TO STDOUT")
        with (
            mock.patch.object(statements, "copy_keys", return_value=failing),
            self.assertRaisesRegex(SyncFailed, "Database primary .*division by zero"),
        ):
            sync()
        self.assertEqual(UserAnalytics.objects.count(), 2)
        self.assertHeals()

    def test_a_table_that_is_missing_is_named_with_its_database(self) -> None:
        for alias, table in (
            ("default", "analytics_syncposition"),
            ("default", "users_userchange"),
            ("analytics", "analytics_synccheckpoint"),
            ("analytics", "analytics_useranalytics"),
        ):
            with self.subTest(table):
                execute(alias, f"ALTER TABLE {table} RENAME TO elsewhere")
                try:
                    named = "primary" if alias == "default" else alias
                    with self.assertRaisesRegex(SyncFailed, f"Database {named} .*{table}"):
                        sync()
                finally:
                    execute(alias, f"ALTER TABLE elsewhere RENAME TO {table}")
        sync()
        self.assertEqualSides()

    def test_a_server_that_is_down_is_named(self) -> None:
        sync()
        for alias in ("default", "analytics"):
            with self.subTest(alias), server_down(alias):
                with self.assertRaises(DatabaseUnavailable) as caught:
                    sync()
                self.assertEqual(caught.exception.alias, alias)
        self.assertEqualSides()


class SyncUserTests(AccountsTestCase):
    def copy(self, user: User) -> UserAnalytics:
        copy = sync_user(user.pk)
        assert copy
        return copy

    def test_copies_one_account_and_its_profile_and_returns_the_copy(self) -> None:
        copy = self.copy(self.bob)
        self.assertEqual((copy.user_id, copy.email), (self.bob.pk, "bob@example.com"))
        self.assertEqual(copy.last_login, self.bob.date_joined)
        self.assertEqual(list(UserAnalytics.objects.all()), [copy])
        self.assertEqual(ProfileAnalytics.objects.get().user_id, self.bob.pk)

    def test_of_a_source_never_synced_the_rest_stays_owed(self) -> None:
        self.copy(self.ada)
        self.assertTrue(begin(USER).disagreement)
        sync()
        self.assertEqualSides()

    def test_copies_a_change_and_leaves_the_log_s_other_entries(self) -> None:
        sync()
        execute("default", "UPDATE users_user SET name = 'new'")
        self.assertEqual(self.copy(self.ada).name, "new")
        self.assertNotEqual(copies()[self.bob.pk][1], "new")
        self.assertEqual(begin(USER).disagreement, "")
        self.assertHeals()

    def test_deletes_the_copies_of_an_account_that_is_gone(self) -> None:
        self.copy(self.ada)
        user_id = self.ada.pk
        self.ada.delete()
        self.assertIsNone(sync_user(str(user_id)))
        self.assertFalse(UserAnalytics.objects.exists())
        self.assertFalse(ProfileAnalytics.objects.exists())

    def test_of_a_user_who_never_was_there_is_no_copy(self) -> None:
        self.assertIsNone(sync_user(uuid4()))

    def test_refuses_what_is_no_uuid(self) -> None:
        wrongs: list[Any] = ["", "ada", 1, None]
        for wrong in wrongs:
            with self.subTest(wrong), self.assertRaises(InvalidShardKey):
                sync_user(wrong)

    def test_an_owed_reconcile_stays_owed(self) -> None:
        sync()
        execute("analytics", "UPDATE analytics_synccheckpoint SET token = gen_random_uuid()")
        execute("analytics", "UPDATE analytics_useranalytics SET name = 'restored'")
        self.copy(self.ada)
        self.assertTrue(begin(USER).disagreement)
        self.assertHeals()

    def test_a_server_that_is_down_is_named(self) -> None:
        for alias in ("default", "analytics"):
            with self.subTest(alias), server_down(alias):
                with self.assertRaises(DatabaseUnavailable) as caught:
                    sync_user(self.ada.pk)
                self.assertEqual(caught.exception.alias, alias)


def column_types(alias: str, table: Identifier, columns: list[Identifier]) -> list[int]:
    with connections[alias].cursor() as cursor:
        query = SQL("SELECT {} FROM {} LIMIT 0")
        cursor.execute(query.format(SQL(", ").join(columns), table))
        return [column.type_code for column in cursor.description]
