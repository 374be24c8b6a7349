"""What a server that gives no connection costs its callers: a moment, not the pool's timeout."""

import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from unittest import mock

from django.db import connections
from django.test import SimpleTestCase
from psycopg import pq

from sharding.backend import base
from sharding.errors import DatabaseUnavailable
from tests.outage import pointed_to, pool_options

AT_ONCE = 10  # seconds at most; in fact some thousandths
ALIAS = "shard_1"


class UnreachableTests(SimpleTestCase):
    databases = {ALIAS}

    def setUp(self) -> None:
        # So long that a test fails where the pool's timeout has to end a wait.
        self.enterContext(pool_options(ALIAS, timeout=2.0 * AT_ONCE))

    @contextmanager
    def assertUnavailable(self, reason: str) -> Iterator[None]:
        started = time.monotonic()
        with self.assertRaisesRegex(DatabaseUnavailable, reason):
            yield
        self.assertLess(time.monotonic() - started, AT_ONCE)
        connections[ALIAS].close()

    def connect(self) -> None:
        connections[ALIAS].ensure_connection()

    def test_it_refuses_the_account(self) -> None:
        # As a wrong password, which these servers ask nobody for.
        with pointed_to({ALIAS: {"USER": "nobody-of-this-name"}}):
            for _ in range(2):
                with self.assertUnavailable('role "nobody-of-this-name" does not exist'):
                    self.connect()
        self.connect()

    def test_it_is_silent(self) -> None:
        """One caller waits for it; the others, and who comes soon after, are told at once."""
        with socket.create_server(("127.0.0.1", 0)) as silent:  # nobody ever answers
            port = str(silent.getsockname()[1])
            with (
                pointed_to({ALIAS: {"HOST": "127.0.0.1", "PORT": port}}),
                mock.patch.object(base.DatabaseWrapper, "_silent", {ALIAS: 1e-9}),  # long ago
            ):
                with ThreadPoolExecutor(8) as pool:
                    waits = sorted(pool.map(self.wait, range(8)))
                self.assertLess(waits[-2], base._PROBE_TIMEOUT / 2)
                self.assertGreater(waits[-1], base._PROBE_TIMEOUT / 2)
                self.assertLess(self.wait(0), base._PROBE_TIMEOUT / 2)
        self.connect()

    def wait(self, _: int) -> float:
        started = time.monotonic()
        with self.assertUnavailable("does not answer"):
            self.connect()
        return time.monotonic() - started

    def test_it_answers_again(self) -> None:
        with mock.patch.object(base.DatabaseWrapper, "_silent", {ALIAS: 1e-9}) as silent:
            connections[ALIAS].close()
            connections[ALIAS].close_pool()  # type: ignore[attr-defined]
            self.connect()
            self.assertEqual(silent, {})

    def test_quick_refusals_are_not_remembered(self) -> None:
        with pointed_to({ALIAS: {"HOST": "/nowhere"}}):
            with self.assertUnavailable("does not answer"):
                self.connect()
            self.assertEqual(base.DatabaseWrapper._silent, {})
        self.connect()
        self.assertEqual(connections[ALIAS].connection.pgconn.status, pq.ConnStatus.OK)
