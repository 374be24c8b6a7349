"""What the triggers write to the log, and what they do not."""

import unittest
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import pgtrigger
from django.db import connections, transaction

from sharding import get_shard_for_user_id
from tests.analytics.sync.support import (
    SHARD,
    USER,
    SyncTestCase,
    add_profiles,
    add_users,
    connect,
    copies,
    execute,
    key,
    logged,
    sync,
)
from users.models import User

A, B, C, D = (key(number) for number in range(1, 5))
_ROW = "(%s, %s, '', '', false, true, false, '2026-01-01', '2026-01-01')"
_INSERT = (
    "INSERT INTO users_user (id, email, name, password, is_superuser, is_active, is_staff,"
    " date_joined, updated_at)"
)


class ChangeLogTests(SyncTestCase):
    aliases = ("default", "analytics", "shard_1")

    def setUp(self) -> None:
        super().setUp()
        add_users([A, B, C])
        self.forget()

    def forget(self) -> None:
        execute("default", "DELETE FROM users_userchange")

    def assertLogged(self, *keys: UUID | None) -> None:
        """Assert what was logged since the last time, in whatever order."""
        self.assertCountEqual(logged(), keys)
        self.forget()

    def after(self, statement: str, parameters: Sequence[Any] = ()) -> None:
        execute("default", statement, parameters)

    def test_nobody_switches_it_off(self) -> None:
        with pgtrigger.ignore("users.User:log_update"):
            User.objects.filter(pk=A).update(name="x")
        self.assertLogged(A)

    def test_one_row(self) -> None:
        add_users([D])
        self.assertLogged(D)
        self.after("UPDATE users_user SET name = 'x' WHERE id = %s", [A])
        self.assertLogged(A)
        self.after("DELETE FROM users_user WHERE id = %s", [B])
        self.assertLogged(B)

    def test_many_rows(self) -> None:
        self.after("UPDATE users_user SET is_staff = true")
        self.assertLogged(A, B, C)
        self.after("DELETE FROM users_user WHERE id <> %s", [A])
        self.assertLogged(B, C)
        add_users([B, C])
        self.assertLogged(B, C)

    def test_no_row(self) -> None:
        self.after("UPDATE users_user SET name = 'x' WHERE false")
        self.after("DELETE FROM users_user WHERE false")
        self.assertLogged()

    def test_every_copied_column_and_no_other(self) -> None:
        others = {"password": "'x'", "updated_at": "now()", "is_superuser": "true"}
        for other, value in others.items():
            with self.subTest(other):
                self.after(f"UPDATE users_user SET {other} = {value}")
                self.assertLogged()
        for column in USER.columns[1:]:
            name = column.as_string()
            texts = {'"email"': "id || '@x.org'", '"name"': "'x'"}
            stamps = {'"date_joined"': "now()", '"last_login"': "now()"}
            new = (texts | stamps).get(name, f"NOT {name}")
            with self.subTest(name):
                self.after(f"UPDATE users_user SET {name} = {new} WHERE id = %s", [A])
                self.assertLogged(A)
        self.after("UPDATE users_user SET last_login = NULL")
        self.assertLogged(A)  # NULL already in the others

    def test_only_the_rows_that_differ(self) -> None:
        self.after("UPDATE users_user SET name = CASE WHEN id = %s THEN 'x' ELSE name END", [B])
        self.assertLogged(B)

    def test_the_orm(self) -> None:
        users = [User(id=D, email="d@example.com"), User(id=key(5), email="e@example.com")]
        User.objects.bulk_create(users)
        self.assertLogged(D, key(5))
        for user in users:
            user.name = "x"
        User.objects.bulk_update(users, ["name"])
        self.assertLogged(D, key(5))
        conflicting = [User(id=D, email="f@example.com"), User(id=key(6), email="g@example.com")]
        User.objects.bulk_create(
            conflicting, update_conflicts=True, unique_fields=["id"], update_fields=["email"]
        )
        self.assertLogged(D, key(6))
        User.objects.filter(pk__in=[A, B]).update(is_active=False)
        self.assertLogged(A, B)

    def test_insert_on_conflict(self) -> None:
        insert = f"{_INSERT} VALUES {_ROW}, {_ROW}"
        values = [A, "a@example.com", D, "d@example.com"]
        self.after(f"{insert} ON CONFLICT (id) DO UPDATE SET email = excluded.email", values)
        self.assertLogged(A, D)
        self.after(f"{insert} ON CONFLICT DO NOTHING", values)
        self.assertLogged()

    def test_merge(self) -> None:
        self.after(
            "MERGE INTO users_user u USING (VALUES (%s::uuid, 1), (%s, 2), (%s, 3)) AS n(id, what)"
            " ON u.id = n.id WHEN MATCHED AND what = 1 THEN UPDATE SET name = 'x'"
            " WHEN MATCHED THEN DELETE"
            " WHEN NOT MATCHED THEN INSERT (id, email, name, password, is_superuser, is_active,"
            " is_staff, date_joined, updated_at)"
            " VALUES (n.id, 'd@example.com', '', '', false, true, false, now(), now())",
            [A, B, D],
        )
        self.assertLogged(A, B, D)

    def test_a_changed_id_is_one_gone_and_one_come(self) -> None:
        self.after("UPDATE users_user SET id = %s WHERE id = %s", [D, A])
        self.assertLogged(A, D)

    def test_swapped_ids(self) -> None:
        sync()
        # Over a third one, as the key is checked row by row.
        with transaction.atomic():
            for old, new in ((A, D), (B, A), (D, B)):
                self.after("UPDATE users_user SET id = %s WHERE id = %s", [new, old])
        self.assertHeals()

    def test_ids_that_move_up_in_one_statement(self) -> None:
        sync()
        # From the last one to the first, so that each finds its new id free.
        self.after("DELETE FROM users_user WHERE id = %s", [C])
        add_users([C])
        self.after("CLUSTER users_user USING users_user_pkey")
        self.after(
            "UPDATE users_user SET id = CASE id WHEN %s THEN %s ELSE %s END WHERE id IN (%s, %s)",
            [C, D, key(5), C, B],
        )
        self.assertIn(D, logged())
        self.assertHeals()

    def test_deleted_and_stored_again(self) -> None:
        sync()
        with transaction.atomic():
            self.after("DELETE FROM users_user WHERE id = %s", [A])
            add_users([A], "again")
        self.assertEqual(set(logged()), {A})
        self.assertHeals()
        self.assertEqual(copies()[A][1], "again")

    def test_several_parts_of_one_statement(self) -> None:
        self.after(
            "WITH gone AS (DELETE FROM users_user WHERE id = %s),"
            " changed AS (UPDATE users_user SET name = 'x' WHERE id = %s)"
            " UPDATE users_user SET name = 'y' WHERE id = %s",
            [A, B, C],
        )
        self.assertLogged(A, B, C)

    def test_truncate(self) -> None:
        for option in ("CASCADE", "RESTART IDENTITY CASCADE"):
            with self.subTest(option):
                add_users([D])
                sync()
                self.after(f"TRUNCATE users_user {option}")
                add_users([B], "after")
                self.assertEqual(logged(), [None, B])
                self.assertHeals()
                self.assertEqual(list(copies()), [B])
                self.after("DELETE FROM users_user")

    def test_what_is_rolled_back_is_not_logged(self) -> None:
        with transaction.atomic():
            self.after("UPDATE users_user SET name = 'x' WHERE id = %s", [A])
            self.after("SAVEPOINT inner_one")
            self.after("UPDATE users_user SET name = 'x' WHERE id = %s", [B])
            self.after("ROLLBACK TO SAVEPOINT inner_one")
        self.assertLogged(A)

    def test_copy(self) -> None:
        with connections["default"].cursor() as cursor:
            statement = f"COPY {_INSERT.removeprefix('INSERT INTO ')} FROM STDIN"
            with cursor.copy(statement) as rows:
                for user_id in (D, key(5)):
                    text = f"{user_id}@example.com"
                    rows.write_row((user_id, text, "", "", False, True, False, "now", "now"))
        self.assertLogged(D, key(5))

    def test_transactions_that_are_prepared(self) -> None:
        if execute("default", "SHOW max_prepared_transactions") == [("0",)]:
            raise unittest.SkipTest("The server allows none.")
        sync()
        with connect("default") as other:
            other.tpc_begin("of a test")
            other.execute("UPDATE users_user SET name = 'prepared' WHERE id = %s", [A])
            other.tpc_prepare()
            self.after("UPDATE users_user SET name = 'younger' WHERE id = %s", [B])
            sync()
            self.assertNotEqual(copies()[A][1], "prepared")
            self.assertEqual(copies()[B][1], "younger")
            other.tpc_commit()
        self.assertHeals()
        self.assertEqual(copies()[A][1], "prepared")

    def test_an_older_entry_that_commits_after_a_younger_one_was_applied(self) -> None:
        sync()
        with connect("default") as late:
            late.execute("UPDATE users_user SET name = 'late' WHERE id = %s", [A])
            self.after("UPDATE users_user SET name = 'younger' WHERE id = %s", [B])
            sync()
            self.assertEqual(copies()[B][1], "younger")
            late.commit()
        self.assertEqual(logged(), [A])
        self.assertHeals()
        self.assertEqual(copies()[A][1], "late")

    def test_profiles_are_logged_on_their_shard(self) -> None:
        one, other = [k for k in map(key, range(50)) if get_shard_for_user_id(k) == "shard_1"][:2]
        add_profiles("shard_1", [one, other])
        self.assertCountEqual(logged(SHARD), [one, other])
        execute("shard_1", "DELETE FROM users_profilechange")
        execute("shard_1", "UPDATE users_profile SET bio = 'x', display_name = 'x'")
        self.assertEqual(logged(SHARD), [])
        execute("shard_1", "UPDATE users_profile SET country = 'DE' WHERE user_id = %s", [one])
        execute("shard_1", "DELETE FROM users_profile WHERE user_id = %s", [other])
        self.assertEqual(logged(SHARD), [one, other])
