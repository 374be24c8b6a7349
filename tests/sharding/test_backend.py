"""Errors of the database backend: a lost connection names its database, all else stays Django's."""

import pickle
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import psycopg
from django.db import (
    DatabaseError,
    DataError,
    IntegrityError,
    InternalError,
    OperationalError,
    ProgrammingError,
    close_old_connections,
    connections,
    transaction,
)
from django.test import SimpleTestCase, TestCase

from sharding.errors import DatabaseUnavailable
from tests.outage import pointed_to, pool_options
from tests.support import server_down

ALIAS = "shard_1"
PASSWORD = "pa55-of-nobody"


def execute(*statements: str, alias: str = ALIAS) -> Any:
    """Run the statements; return the first value of the last one."""
    with connections[alias].cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
        return cursor.fetchone()[0] if cursor.description else None


class DjangosErrorsTests(TestCase):
    databases = {ALIAS}

    def assertRaisesExactly(self, expected: type[DatabaseError], *statements: str) -> None:
        with self.assertRaises(DatabaseError) as caught, transaction.atomic(using=ALIAS):
            execute(*statements)
        self.assertIs(type(caught.exception), expected, caught.exception)

    def test_timeouts(self) -> None:
        sleep = "SELECT pg_sleep(60)"
        self.assertRaisesExactly(OperationalError, "SET LOCAL statement_timeout = 10", sleep)

    def test_statements_that_are_wrong(self) -> None:
        self.assertRaisesExactly(ProgrammingError, "SELEC 1")
        self.assertRaisesExactly(ProgrammingError, "SELECT * FROM nothing")
        self.assertRaisesExactly(DataError, "SELECT 1 / 0")
        self.assertRaisesExactly(DataError, "SELECT 'x'::uuid")

    def test_violations(self) -> None:
        execute("CREATE TEMPORARY TABLE one (id int PRIMARY KEY) ON COMMIT DROP")
        insert = "INSERT INTO one VALUES (1)"
        self.assertRaisesExactly(IntegrityError, insert, insert)
        self.assertRaisesExactly(IntegrityError, "INSERT INTO one VALUES (NULL)")

    def test_a_transaction_that_failed(self) -> None:
        with self.assertRaises(InternalError) as caught, transaction.atomic(using=ALIAS):
            with self.assertRaises(DataError):
                execute("SELECT 1 / 0")
            execute("SELECT 1")
        self.assertIs(type(caught.exception), InternalError)

    def test_what_is_no_error_of_a_database(self) -> None:
        with self.assertRaises(ZeroDivisionError), connections[ALIAS].wrap_database_errors:
            raise ZeroDivisionError


class DeadlockTests(SimpleTestCase):
    databases = {ALIAS}

    def test_a_deadlock_stays_an_operational_error(self) -> None:
        both_hold_one = Barrier(2)

        def lock(first: int, second: int) -> BaseException | None:
            try:
                with transaction.atomic(using=ALIAS):
                    execute("SET LOCAL deadlock_timeout = '10ms'")
                    execute(f"SELECT pg_advisory_xact_lock({first})")
                    both_hold_one.wait(timeout=10)
                    execute(f"SELECT pg_advisory_xact_lock({second})")
            except DatabaseError as error:
                return error
            finally:
                connections[ALIAS].close()
            return None

        with ThreadPoolExecutor(2) as pool:
            errors = [error for error in pool.map(lock, (1, 2), (2, 1)) if error]
        self.assertTrue(errors)
        for error in errors:
            self.assertIs(type(error), OperationalError, error)
            self.assertIn("deadlock detected", str(error))


class LostConnectionTests(SimpleTestCase):
    databases = {ALIAS, "shard_2"}

    def setUp(self) -> None:
        self.addCleanup(connections[ALIAS].close)

    def terminate(self) -> None:
        """End this thread's connection from the server's side."""
        process = execute("SELECT pg_backend_pid()")
        with connections[ALIAS]._nodb_cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(%s, 10000)", [process])

    def test_a_statement_that_was_cut_off_names_the_database(self) -> None:
        with self.assertRaises(DatabaseUnavailable) as caught:
            execute("SELECT pg_terminate_backend(pg_backend_pid())", "SELECT 1")
        self.assertEqual(caught.exception.alias, ALIAS)
        self.assertTrue(str(caught.exception).startswith(f"Database {ALIAS} cannot be reached: "))
        self.assertIsInstance(caught.exception.__cause__, psycopg.Error)
        close_old_connections()
        self.assertEqual(execute("SELECT 1"), 1)

    def test_between_two_requests_it_is_replaced_unseen(self) -> None:
        self.terminate()
        close_old_connections()  # as at the start and end of each request
        self.assertEqual(execute("SELECT 1"), 1)

    def test_in_the_middle_of_a_transaction(self) -> None:
        with self.assertRaises(DatabaseUnavailable) as caught, transaction.atomic(using=ALIAS):
            self.terminate()
            execute("SELECT 1")
        self.assertEqual(caught.exception.alias, ALIAS)
        close_old_connections()
        with transaction.atomic(using=ALIAS):
            self.assertEqual(execute("SELECT 1"), 1)

    def test_at_the_commit(self) -> None:
        with self.assertRaises(DatabaseUnavailable) as caught, transaction.atomic(using=ALIAS):
            execute("SELECT 1")
            self.terminate()
        self.assertEqual(caught.exception.alias, ALIAS)

    def test_another_connection_is_not_affected(self) -> None:
        with transaction.atomic(using="shard_2"):
            execute("SELECT 1", alias="shard_2")
            self.terminate()
            with self.assertRaises(DatabaseUnavailable):
                execute("SELECT 1")
            self.assertEqual(execute("SELECT 1", alias="shard_2"), 1)


class RefusedConnectionTests(SimpleTestCase):
    """Each error says why, at once, and never the password."""

    databases = {ALIAS, "default"}

    def assertUnavailable(self, reason: str, **settings: Any) -> DatabaseUnavailable:
        with (
            pool_options(ALIAS, timeout=0.3),
            pointed_to({ALIAS: {"PASSWORD": PASSWORD, **settings}}),
            self.assertRaises(DatabaseUnavailable) as caught,
            self.assertLogs("psycopg.pool", "DEBUG") as logs,
        ):
            execute("SELECT 1")
        error = caught.exception
        self.assertEqual(error.alias, ALIAS)
        self.assertRegex(str(error), f"^Database {ALIAS} cannot be reached: .*{reason}")
        self.assertNotIn("\n", str(error))
        everything = [*traceback.format_exception(error), repr(error), *logs.output]
        self.assertNotIn(PASSWORD, "".join(everything))
        return error

    def test_no_server(self) -> None:
        self.assertUnavailable("its server does not answer", HOST="/nowhere")
        self.assertUnavailable("its server does not answer", HOST="127.0.0.1", PORT="1")

    def test_no_such_role(self) -> None:
        self.assertUnavailable('role "nobody" does not exist', USER="nobody")

    def test_no_such_database(self) -> None:
        self.assertUnavailable('database "nothing" does not exist', NAME="nothing")

    def test_no_connection_left_for_the_role(self) -> None:
        execute("DROP ROLE IF EXISTS crowded", "CREATE ROLE crowded LOGIN CONNECTION LIMIT 0")
        try:
            self.assertUnavailable("too many connections for role", USER="crowded")
        finally:
            execute("DROP ROLE crowded")

    def test_without_a_pool(self) -> None:
        options = {**connections[ALIAS].settings_dict["OPTIONS"], "pool": False}
        with (
            pointed_to({ALIAS: {"HOST": "/nowhere", "PASSWORD": PASSWORD, "OPTIONS": options}}),
            self.assertRaises(DatabaseUnavailable) as caught,
        ):
            execute("SELECT 1")
        self.assertRegex(str(caught.exception), rf"^Database {ALIAS} cannot be reached: .*\Z")
        self.assertNotIn(PASSWORD, "".join(traceback.format_exception(caught.exception)))

    def test_people_know_the_primary_by_that_name(self) -> None:
        with server_down("default"), self.assertRaises(DatabaseUnavailable) as caught:
            execute("SELECT 1", alias="default")
        self.assertIn("Database primary cannot be reached", str(caught.exception))
        self.assertEqual(caught.exception.alias, "default")

    def test_every_connection_of_the_pool_in_use(self) -> None:
        with pool_options(ALIAS, min_size=0, max_size=1, timeout=0.2):
            with connections[ALIAS].cursor(), ThreadPoolExecutor(1) as other:
                error = other.submit(_error_of, lambda: execute("SELECT 1")).result()
            assert isinstance(error, DatabaseUnavailable), error
            self.assertIn("all 1 connections that this process may open are in use", str(error))
            connections[ALIAS].close()
            self.assertEqual(execute("SELECT 1"), 1)


class ErrorTests(SimpleTestCase):
    def test_survives_pickling(self) -> None:
        error = DatabaseUnavailable("Database shard_1 is gone.", alias="shard_1")
        copied = pickle.loads(pickle.dumps(error))
        self.assertEqual((str(copied), copied.alias), (str(error), "shard_1"))
        self.assertIsInstance(copied, OperationalError)


def _error_of(function: Callable[[], object]) -> BaseException | None:
    try:
        function()
    except Exception as error:
        return error
    return None
