"""The primary's circuit breaker."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Event
from unittest import mock

from django.db import OperationalError, ProgrammingError, connections
from django.test import TestCase
from pybreaker import STATE_CLOSED, STATE_OPEN

from sharding.errors import DatabaseUnavailable
from tests.support import server_down
from users import primary
from users.primary import ask_primary, breaker


def fail() -> None:
    raise OperationalError("lost")


class BreakerTests(TestCase):
    databases = {"default"}

    def setUp(self) -> None:
        self.enterContext(self.assertLogs("users.primary"))
        self.addCleanup(breaker.close)

    def open(self) -> None:
        with self.assertRaisesRegex(OperationalError, "lost"):
            ask_primary(fail)
        self.assertEqual(breaker.current_state, STATE_OPEN)

    def test_while_open_nobody_asks(self) -> None:
        self.open()
        asked = mock.Mock()
        with self.assertRaises(DatabaseUnavailable) as caught:
            ask_primary(asked)
        self.assertEqual(caught.exception.alias, "default")
        asked.assert_not_called()

    def test_after_the_pause_the_first_answer_closes_it(self) -> None:
        self.open()
        with mock.patch.object(breaker, "_reset_timeout", 0):
            self.assertEqual(ask_primary(lambda: 1), 1)
        self.assertEqual(breaker.current_state, STATE_CLOSED)

    def test_no_answer_after_the_pause_and_it_stays_open(self) -> None:
        self.open()
        asked = mock.Mock()
        with mock.patch.object(breaker, "_reset_timeout", 0), server_down("default"):
            with self.assertRaises(DatabaseUnavailable):
                ask_primary(asked)
            self.assertEqual(breaker.current_state, STATE_OPEN)
        asked.assert_not_called()

    def test_one_thread_tries_and_the_others_do_not_wait_for_it(self) -> None:
        self.open()
        trying, go_on = Event(), Event()

        def slow_ping() -> None:
            trying.set()
            go_on.wait(10)

        with (
            mock.patch.object(breaker, "_reset_timeout", 0),
            mock.patch.object(primary, "_ping", slow_ping),
            ThreadPoolExecutor(1) as thread,
        ):
            first = thread.submit(ask_primary, lambda: "first")
            trying.wait(10)
            with self.assertRaises(DatabaseUnavailable):
                ask_primary(lambda: "second")
            go_on.set()
            self.assertEqual(first.result(), "first")

    def test_closed_it_lets_threads_ask_at_once(self) -> None:
        together = Barrier(2, timeout=10)
        self.open()
        breaker.close()
        with ThreadPoolExecutor(2) as threads:
            done = [threads.submit(ask_primary, together.wait) for _ in range(2)]
            self.assertEqual({future.result() for future in done}, {0, 1})

    def test_a_mistake_is_no_outage(self) -> None:
        self.open()
        breaker.close()

        def mistaken() -> None:
            with connections["default"].cursor() as cursor:
                cursor.execute("SELECT nothing")

        with self.assertRaises(ProgrammingError):
            ask_primary(mistaken)
        self.assertEqual(breaker.current_state, STATE_CLOSED)


class LogTests(TestCase):
    databases = {"default"}

    def test_one_line_at_the_beginning_of_an_outage_and_one_at_its_end(self) -> None:
        with (
            self.assertLogs("users.primary") as logs,
            mock.patch.object(breaker, "_reset_timeout", 0),
        ):
            with mock.patch.object(primary, "_ping", fail):
                for _ in range(5):
                    with self.assertRaises(OperationalError):
                        ask_primary(fail)
            ask_primary(lambda: None)
        self.assertEqual(len(logs.output), 2, logs.output)
        self.assertIn("cannot be reached", logs.output[0])
        self.assertIn("again", logs.output[1])
