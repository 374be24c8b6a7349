"""What a server that gives no connection costs its callers: a moment, not the pool's timeout."""

import os
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from unittest import mock

from django.db import connections
from django.test import SimpleTestCase
from psycopg import pq

from config import pgbinaries
from config.embedded import Cluster
from sharding.backend import base, probing
from sharding.errors import DatabaseUnavailable
from tests.outage import own_servers, pointed_to, pool_options

AT_ONCE = 10  # seconds at most; in fact some thousandths
ALIAS = "shard_1"


class UnreachableTests(SimpleTestCase):
    databases = {"default", ALIAS}

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
                self.assertLess(waits[-2], probing.TIMEOUT / 2)
                self.assertGreater(waits[-1], probing.TIMEOUT / 2)
                self.assertLess(self.wait(0), probing.TIMEOUT / 2)
        self.connect()

    def test_it_hangs(self) -> None:
        """As with a disk that does not answer: connections are there, and nothing comes back."""
        with own_servers(ALIAS) as servers, pool_options(ALIAS, timeout=2.0 * AT_ONCE):
            self.connect()
            connections[ALIAS].close()
            with self.paused(servers):
                with self.assertUnavailable("does not answer"):
                    self.connect()
                self.assertLess(self.wait(0), probing.TIMEOUT / 2)
            base.DatabaseWrapper._silent.clear()  # two seconds later
            self.connect()

    @contextmanager
    def paused(self, servers: Cluster) -> Iterator[None]:
        (status,) = servers.status(ALIAS)
        assert status.pid
        processes = [status.pid, *pgbinaries.children(status.pid)]
        for process in processes:
            os.kill(process, signal.SIGSTOP)
        try:
            yield
        finally:
            for process in processes:
                os.kill(process, signal.SIGCONT)

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
