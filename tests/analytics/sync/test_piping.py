"""A COPY from one server into one on another, and what may become of it."""

from typing import Any
from unittest import mock

from django.db import connections, transaction
from psycopg import Copy
from psycopg.sql import SQL

from analytics.sync import SyncFailed, piping
from analytics.sync.piping import pipe
from sharding.errors import DatabaseUnavailable
from tests.analytics.sync.support import SyncTestCase, connect, execute

INTO = SQL("COPY piped FROM STDIN (FORMAT BINARY)").format()
COPY = "COPY (SELECT {} FROM generate_series(1, {}) n) TO STDOUT (FORMAT BINARY)"


def rows(number: int, size: int) -> str:
    """A COPY of so many rows: their numbers, and a text of so many letters."""
    return COPY.format(f"n, repeat('x', {size})", number)


class PipeTests(SyncTestCase):
    aliases = ("default", "analytics")

    def setUp(self) -> None:
        super().setUp()
        execute("analytics", "CREATE TABLE IF NOT EXISTS piped (n int, x text)")
        self.addCleanup(execute, "analytics", "DROP TABLE piped")

    def pipe(self, out: str) -> int:
        with transaction.atomic(), transaction.atomic(using="analytics"):
            here, there = (connections[alias].cursor() for alias in ("default", "analytics"))
            return pipe(here, there, out=SQL(out).format(), into=INTO)

    def stored(self) -> tuple[Any, ...]:
        return execute("analytics", "SELECT count(*), coalesce(sum(n + length(x)), 0) FROM piped")[
            0
        ]

    def assertUsable(self) -> None:
        """Assert that nothing of what failed is stored or in the way."""
        self.assertEqual(self.stored(), (0, 0))
        self.assertEqual(self.pipe(rows(3, 1)), 3)
        self.assertEqual(self.stored(), (3, 9))

    def test_every_row_arrives(self) -> None:
        for number, size in ((0, 1), (1, 0), (1, 300_000), (20_000, 100), (3, 70_000)):
            with self.subTest(rows=number, size=size):
                execute("analytics", "TRUNCATE piped")
                self.assertEqual(self.pipe(rows(number, size)), number)
                expected = number * (number + 1) // 2 + number * size
                self.assertEqual(self.stored(), (number, expected))

    def test_rows_that_come_slowly(self) -> None:
        slow = COPY.format("n, repeat('x', 9000) || pg_sleep(0.02)", 5)
        waits = mock.patch.object(Copy, "read", autospec=True, side_effect=Copy.read)
        with waits as read:
            self.assertEqual(self.pipe(slow), 5)
        self.assertGreater(read.call_count, 1)

    def test_the_source_fails_half_way(self) -> None:
        with (
            self.assertNoLogs("psycopg", "WARNING"),
            self.assertRaisesRegex(SyncFailed, "primary stopped the sync: division by zero"),
        ):
            self.pipe(COPY.format("n, (1 / (5000 - n))::text", 9000))
        self.assertUsable()

    def test_the_statement_is_refused(self) -> None:
        with self.assertRaisesRegex(SyncFailed, "primary stopped the sync: relation"):
            self.pipe("COPY nothing TO STDOUT (FORMAT BINARY)")
        self.assertUsable()

    def test_analytics_fails_half_way(self) -> None:
        with self.assertRaisesRegex(SyncFailed, "analytics stopped the sync: row field count"):
            self.pipe(COPY.format("n", 50_000))
        self.assertUsable()

    def test_the_source_is_gone_half_way(self) -> None:
        with self.assertRaises(DatabaseUnavailable) as caught, self.after(1000, self.kill):
            self.pipe(rows(20_000, 1000))
        self.assertEqual(caught.exception.alias, "default")
        self.assertUsable()

    def test_ctrl_c_half_way(self) -> None:
        def interrupt() -> None:
            raise KeyboardInterrupt

        with self.assertRaises(KeyboardInterrupt), self.after(1000, interrupt):
            self.pipe(rows(20_000, 1000))
        self.assertUsable()

    def after(self, rows: int, action: Any) -> Any:
        """Do something after so many rows were read."""
        original = piping._rows

        def counted(*args: Any) -> Any:
            for number, row in enumerate(original(*args)):
                if number == rows:
                    action()
                yield row

        return mock.patch.object(piping, "_rows", counted)

    def kill(self) -> None:
        pid = connections["default"].connection.info.backend_pid
        with connect("default", autocommit=True) as client:
            client.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
