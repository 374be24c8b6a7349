"""Copying accounts to analytics."""

from typing import Any
from unittest import mock
from uuid import uuid4

from django.db import connections
from django.test import TestCase
from psycopg.sql import SQL, Identifier

from analytics.models import UserAnalytics
from analytics.sync import (
    SyncAlreadyRunning,
    SyncFailed,
    SyncResult,
    full,
    single,
    statements,
    sync_all,
    sync_one,
    sync_user,
)
from sharding.errors import DatabaseUnavailable, InvalidShardKey
from sharding.hashing import slot_for
from tests.support import ServerLog, server_down
from users.models import User

COPIED = ("email", "name", "is_active", "is_staff", "date_joined", "last_login")


class SyncTestCase(TestCase):
    databases = "__all__"
    ada: User
    bob: User

    @classmethod
    def setUpTestData(cls):
        cls.ada = User.objects.create_user("ada@example.com", "secret", name="Ada ☃\t\\N")
        cls.bob = User.objects.create_user("bob@example.com", is_active=False, is_staff=True)
        User.objects.filter(pk=cls.bob.pk).update(last_login=cls.bob.date_joined)

    def assertCopied(self):
        """Assert that analytics holds every account, value by value, and no other."""
        copies = UserAnalytics.objects.order_by("user_id").values_list("user_id", *COPIED)
        accounts = User.objects.order_by("id").values_list("id", *COPIED)
        self.assertEqual(list(copies), list(accounts))


class FullPassTests(SyncTestCase):
    def test_copies_every_account(self):
        self.assertEqual(sync_all(), SyncResult(upserted=2))
        self.assertCopied()

    def test_copies_changes_and_leaves_the_rest_alone(self):
        sync_all()
        before = dict(UserAnalytics.objects.values_list("user_id", "synced_at"))
        User.objects.filter(pk=self.bob.pk).update(name="Bob", last_login=None)
        self.assertEqual(sync_all(), SyncResult(upserted=1, unchanged=1))
        self.assertCopied()
        after = dict(UserAnalytics.objects.values_list("user_id", "synced_at"))
        self.assertEqual(after[self.ada.pk], before[self.ada.pk])
        self.assertGreater(after[self.bob.pk], before[self.bob.pk])

    def test_two_users_may_swap_their_emails(self):
        sync_all()
        User.objects.filter(pk=self.ada.pk).update(email="c@example.com")
        User.objects.filter(pk=self.bob.pk).update(email="ada@example.com")
        sync_all()
        self.assertCopied()

    def test_deletes_copies_of_accounts_that_are_gone(self):
        sync_all()
        self.bob.delete()
        self.assertEqual(sync_all(), SyncResult(deleted=1, unchanged=1))
        self.assertCopied()

    def test_an_empty_primary_empties_analytics(self):
        sync_all()
        User.objects.all().delete()
        self.assertEqual(sync_all(), SyncResult(deleted=2))

    def test_never_reads_the_password(self):
        self.assertNotIn("password", statements.copy_from_primary().as_string())
        self.assertNotIn("*", statements.copy_from_primary().as_string())

    def test_a_second_pass_at_once_is_refused(self):
        other = ServerLog("analytics").connection
        self.addCleanup(other.close)
        other.execute("SELECT pg_advisory_lock(%s)", [full.LOCK])
        with self.assertRaises(SyncAlreadyRunning):
            sync_all()

    def test_an_error_names_the_database_and_changes_nothing(self):
        sync_all()
        self.bob.delete()
        broken = SQL("DELETE FROM missing")
        with (
            mock.patch.object(statements, "delete_gone", return_value=broken),
            self.assertRaisesRegex(SyncFailed, "Database analytics .*missing"),
        ):
            sync_all()
        self.assertEqual(UserAnalytics.objects.count(), 2)
        self.assertEqual(sync_all(), SyncResult(deleted=1, unchanged=1))

    def test_an_error_of_the_primary_in_the_middle_of_the_copy_is_not_blamed_on_analytics(self):
        sync_all()
        failing = SQL("COPY (SELECT 1 / (2 - g) FROM generate_series(1, 3) g) TO STDOUT")
        with (
            mock.patch.object(statements, "copy_from_primary", return_value=failing),
            self.assertRaisesRegex(SyncFailed, "Database primary .*division by zero"),
        ):
            sync_all()
        self.assertEqual(UserAnalytics.objects.count(), 2)

    def test_a_server_that_is_down_is_named(self):
        sync_all()
        for alias in ("default", "analytics"):
            with self.subTest(alias), server_down(alias):
                with self.assertRaises(DatabaseUnavailable) as caught:
                    sync_all()
                self.assertEqual(caught.exception.alias, alias)
        self.assertEqual(UserAnalytics.objects.count(), 2)

    def test_the_types_of_both_tables_are_the_same(self):
        """Binary COPY writes what it reads, whatever the columns are."""
        self.assertEqual(
            column_types("default", statements._SOURCE, statements._SOURCE_COLUMNS),
            column_types("analytics", statements._TARGET, statements._COLUMNS),
        )


def column_types(alias: str, table: Identifier, columns: list[Identifier]) -> list[int]:
    with connections[alias].cursor() as cursor:
        query = SQL("SELECT {} FROM {} LIMIT 0")
        cursor.execute(query.format(SQL(", ").join(columns), table))
        return [column.type_code for column in cursor.description]


class SingleTests(SyncTestCase):
    def copy(self, user: User) -> UserAnalytics:
        copy = sync_user(user.pk)
        assert copy
        return copy

    def test_copies_one_account_and_returns_the_copy(self):
        copy = self.copy(self.bob)
        self.assertEqual((copy.user_id, copy.email), (self.bob.pk, "bob@example.com"))
        self.assertEqual(copy.last_login, self.bob.date_joined)
        self.assertEqual(list(UserAnalytics.objects.all()), [copy])

    def test_copies_a_change(self):
        before = self.copy(self.ada)
        self.assertEqual(sync_one(self.ada.pk), SyncResult(unchanged=1))
        User.objects.filter(pk=self.ada.pk).update(name="Ada King")
        self.assertEqual(sync_one(str(self.ada.pk)), SyncResult(upserted=1))
        after = self.copy(self.ada)
        self.assertEqual(after.name, "Ada King")
        self.assertGreater(after.synced_at, before.synced_at)

    def test_deletes_the_copy_of_an_account_that_is_gone(self):
        sync_user(self.ada.pk)
        user_id = self.ada.pk
        self.ada.delete()
        self.assertEqual(sync_one(user_id), SyncResult(deleted=1))
        self.assertIsNone(sync_user(user_id))
        self.assertFalse(UserAnalytics.objects.exists())

    def test_of_a_user_who_never_was_there_is_no_copy(self):
        self.assertEqual(sync_one(uuid4()), SyncResult())

    def test_refuses_what_is_no_uuid(self):
        wrongs: list[Any] = ["", "ada", 1, None]
        for wrong in wrongs:
            with self.subTest(wrong), self.assertRaises(InvalidShardKey):
                sync_user(wrong)

    def test_waits_for_another_sync_of_the_same_user(self):
        other = ServerLog("analytics").connection
        self.addCleanup(other.close)
        other.execute("SELECT pg_advisory_lock(%s, %s)", [single.LOCK, slot_for(self.ada.pk)])
        with connections["analytics"].cursor() as cursor:
            cursor.execute("SET LOCAL lock_timeout = '50ms'")
        with self.assertRaisesRegex(SyncFailed, "lock timeout"):
            sync_user(self.ada.pk)

    def test_an_error_names_the_database(self):
        with connections["default"].cursor() as cursor:
            cursor.execute("ALTER TABLE users_user RENAME TO elsewhere")
        with self.assertRaisesRegex(SyncFailed, "Database primary .*users_user"):
            sync_user(self.ada.pk)

    def test_a_server_that_is_down_is_named(self):
        for alias in ("default", "analytics"):
            with self.subTest(alias), server_down(alias):
                with self.assertRaises(DatabaseUnavailable) as caught:
                    sync_user(self.ada.pk)
                self.assertEqual(caught.exception.alias, alias)
