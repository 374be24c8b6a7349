"""The guard: what it refuses, on which statements, and when a change of it is known everywhere."""

from typing import Any
from uuid import UUID

import psycopg
from django.db import connections, transaction
from django.test import SimpleTestCase
from psycopg.sql import SQL

from sharding import fence, ownership
from sharding.errors import SlotMoved
from sharding.fence import Ownership
from sharding.hashing import SLOTS, slot_for
from sharding.slot_sql import in_slots, ranges, slot_of
from tests.analytics.sync.support import connect
from tests.sharding.moves.support import user_id

HERE = "shard_1"  # owns 0 to 333
OWN, OTHER = user_id(5), user_id(700)
INSERT = (
    "INSERT INTO users_profile (user_id, display_name, country, plan, bio, settings, created_at,"
    " updated_at) SELECT id, '', '', 'free', '', '{}', now(), now() FROM unnest(%s::uuid[]) AS id"
)


class GuardTests(SimpleTestCase):
    databases = {"default", HERE}

    def setUp(self) -> None:
        self.addCleanup(self.clean)
        self.psql = connect(HERE, autocommit=True)
        self.addCleanup(self.psql.close)
        self.psql.execute(INSERT, [[OWN]])

    def clean(self) -> None:
        with connections[HERE].cursor() as cursor:
            cursor.execute("SET session_replication_role = replica")
            cursor.execute("DELETE FROM users_activity")
            cursor.execute("DELETE FROM users_profile")
            cursor.execute("DELETE FROM users_profilechange")
            cursor.execute("RESET session_replication_role")

    def assertRefused(self, statement: str, *parameters: Any) -> None:
        with self.assertRaises(psycopg.DatabaseError) as caught:
            self.psql.execute(statement, parameters)
        self.assertEqual(caught.exception.sqlstate, "SH001", caught.exception)

    def put_beside(self) -> None:
        """Store a row that does not belong here, as replication would."""
        self.psql.execute("SET session_replication_role = replica")
        self.psql.execute(INSERT, [[OTHER]])
        self.psql.execute("RESET session_replication_role")

    def test_its_own_slots_are_free(self) -> None:
        self.psql.execute("UPDATE users_profile SET bio = 'x'")
        self.psql.execute("DELETE FROM users_profile")
        self.psql.execute("TRUNCATE users_profile CASCADE")

    def test_every_statement_on_another_one(self) -> None:
        self.put_beside()
        self.assertRefused(INSERT, [user_id(7), user_id(701)])
        self.assertRefused(INSERT + " ON CONFLICT (user_id) DO UPDATE SET bio = 'x'", [OTHER])
        self.assertRefused("UPDATE users_profile SET bio = 'x'")
        self.assertRefused(
            "UPDATE users_profile SET user_id = %s WHERE user_id = %s", user_id(701), OWN
        )
        self.assertRefused(
            "UPDATE users_profile SET user_id = %s WHERE user_id = %s", user_id(6), OTHER
        )
        self.assertRefused("DELETE FROM users_profile")
        self.assertRefused(
            "MERGE INTO users_profile USING (SELECT %s::uuid AS id) s ON user_id = s.id"
            " WHEN MATCHED THEN DELETE",
            OTHER,
        )
        self.assertRefused(
            "INSERT INTO users_activity (id, user_id, kind, amount, payload, occurred_at)"
            " VALUES (gen_random_uuid(), %s, '', 0, '{}', now())",
            OTHER,
        )
        # What a COPY leaves out is NULL, which is refused sooner: the columns do not allow it.
        copied = "COPY users_activity (id, user_id, kind, amount, payload, occurred_at) FROM STDIN"
        with (
            self.assertRaisesRegex(psycopg.DatabaseError, "INSERT on users_activity is refused"),
            self.psql.cursor() as cursor,
            cursor.copy(copied) as copy,
        ):
            copy.write_row([OWN, OTHER, "", 0, "{}", "2026-01-01"])

    def test_the_error_says_what_to_do(self) -> None:
        text = "slot 700 is not owned.*let the router"
        cursor = self.enterContext(connections[HERE].cursor())
        with self.assertRaisesRegex(SlotMoved, text) as caught:
            cursor.execute(INSERT, [[OTHER]])
        self.assertEqual((caught.exception.alias, caught.exception.slot), (HERE, 700))

    def test_a_hand_that_turns_cleaning_on_may_delete_nothing_of_its_own(self) -> None:
        self.psql.execute("SET sharding.cleaning = 'on'")
        self.assertRefused("DELETE FROM users_profile WHERE user_id = %s", OWN)

    def test_cleaning_deletes_what_a_move_left_and_nothing_of_another_move(self) -> None:
        self.put_beside()
        with ownership.changing(HERE) as cursor:
            ownership.set_state(cursor, [700], "moved", move=7)
        self.addCleanup(self.release)
        self.assertRefused("DELETE FROM users_profile WHERE user_id = %s", OTHER)
        self.psql.execute("SET sharding.cleaning = 'on'")
        for move in ("6", ""):
            self.psql.execute(f"SET sharding.cleaning_move = '{move}'")
            self.assertRefused("DELETE FROM users_profile WHERE user_id = %s", OTHER)
        self.psql.execute("SET sharding.cleaning_move = '7'")
        self.assertRefused("DELETE FROM users_profile WHERE user_id = %s", OWN)
        deleted = self.psql.execute("DELETE FROM users_profile WHERE user_id = %s", [OTHER])
        self.assertEqual(deleted.rowcount, 1)
        log = self.psql.execute("SELECT user_id FROM users_profilechange").fetchall()
        self.assertNotIn((OTHER,), log)

    def release(self) -> None:
        with ownership.changing(HERE) as cursor:
            ownership.release(cursor, [700])
            ownership.claim(cursor, [5])

    def test_a_fence_ends_by_itself(self) -> None:
        self.addCleanup(self.release)
        for until, refused in (("1 hour", True), ("-1 second", False)):
            with ownership.changing(HERE) as cursor:
                cursor.execute("SELECT clock_timestamp() + %s::interval", [until])
                (moment,) = cursor.fetchone()
                ownership.set_state(cursor, [5], "fenced", move=7, fenced_until=moment)
            if refused:
                self.assertRefused("UPDATE users_profile SET bio = 'x'")
            else:
                self.psql.execute("UPDATE users_profile SET bio = 'x'")

    def test_a_transaction_that_comes_later_knows_the_change(self) -> None:
        """Under every isolation level, also with a snapshot from before."""
        for level in ("READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"):
            with self.subTest(level):
                self.psql.execute(f"BEGIN ISOLATION LEVEL {level}")
                self.psql.execute("SELECT 1 FROM pg_class")
                with ownership.changing(HERE) as cursor:
                    ownership.set_state(cursor, [5], "moved", move=7)
                with connections[HERE].cursor() as cursor:
                    self.assertEqual(fence.writers(cursor), set())
                self.assertRefused("UPDATE users_profile SET bio = 'x'")
                self.psql.execute("ROLLBACK")
                self.release()

    def test_one_that_holds_a_lock_is_waited_for(self) -> None:
        with self.psql.transaction():
            self.psql.execute("UPDATE users_profile SET bio = 'x'")
            with connections[HERE].cursor() as cursor:
                writers = fence.writers(cursor)
            self.assertEqual({pid for _, pid in writers}, {self.psql.info.backend_pid})
        with connections[HERE].cursor() as cursor:
            self.assertEqual(fence.writers(cursor), set())

    def test_a_prepared_transaction_is_waited_for(self) -> None:
        self.psql.execute("BEGIN")
        self.psql.execute("UPDATE users_profile SET bio = 'x'")
        self.psql.execute("PREPARE TRANSACTION 'waiting'")
        try:
            with connections[HERE].cursor() as cursor:
                self.assertEqual({pid for _, pid in fence.writers(cursor)}, {None})
        finally:
            self.psql.execute("ROLLBACK PREPARED 'waiting'")

    def test_the_guard_and_the_table_are_compared(self) -> None:
        with connections[HERE].cursor() as cursor:
            self.assertTrue(ownership.guard_agrees(cursor))
            cursor.execute("UPDATE sharding_slotowner SET state = 'moved' WHERE slot = 5")
            self.addCleanup(self.release)
            self.assertFalse(ownership.guard_agrees(cursor))
            self.assertEqual(fence.missing(cursor), [])
            with transaction.atomic(HERE):
                for change in ("DROP TRIGGER {} ON {}", "ALTER TABLE {1} DISABLE TRIGGER {0}"):
                    cursor.execute(change.format("sharding_guard_delete", "users_activity"))
                    self.assertEqual(fence.missing(cursor), ["users_activity"])
                    self.assertEqual(fence.install(cursor), ["users_activity"])
                    self.assertEqual(fence.missing(cursor), [])
                transaction.set_rollback(True, using=HERE)


class SlotSqlTests(SimpleTestCase):
    databases = {HERE}

    def test_the_same_slot_as_in_python(self) -> None:
        keys = [user_id(slot) for slot in range(0, SLOTS, 7)]
        keys += [UUID(int=0), UUID(int=2**128 - 1), UUID("80000000-0000-4000-8000-000000000000")]
        query = SQL("SELECT k, {} FROM unnest(%s::uuid[]) AS k").format(slot_of(SQL("k")))
        with connections[HERE].cursor() as cursor:
            cursor.execute(query, [keys])
            self.assertEqual(dict(cursor.fetchall()), {key: slot_for(key) for key in keys})

    def test_ranges(self) -> None:
        self.assertEqual(ranges([5, 1, 2, 3, 9]), [(1, 3), (5, 5), (9, 9)])
        self.assertEqual(ranges([]), [])

    def test_no_slots_at_all(self) -> None:
        self.assertEqual(in_slots(SQL("s"), []).as_string(), "(false)")

    def test_a_body_for_every_ownership(self) -> None:
        every = frozenset(range(SLOTS))
        bodies = {fence.body("user_id", o) for o in (Ownership(), Ownership(owned=every))}
        self.assertEqual(len(bodies), 2)
