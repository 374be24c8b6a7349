"""Syncs that sleep while another one works, and connections that are lost at a bad moment."""

from collections.abc import Callable
from unittest import mock

from django.db import OperationalError, connections

from analytics.sync import Overtaken, SyncFailed, batch, full, sync_user
from analytics.sync.batch import begin
from sharding.errors import DatabaseUnavailable
from tests.analytics.sync import SOAK
from tests.analytics.sync.steps import APART, POINTS, Point, at, point_name
from tests.analytics.sync.support import (
    USER,
    SyncTestCase,
    add_users,
    connect,
    copies,
    execute,
    in_thread,
    key,
    logged,
    sync,
)
from tests.support import wait_until

A, B, C = (key(number) for number in range(1, 4))
SET_NAME = "UPDATE users_user SET name = %s WHERE id = %s"


class ChangedTestCase(SyncTestCase):
    """Begins with three users in sync and a change to copy."""

    def setUp(self) -> None:
        super().setUp()
        add_users([A, B, C])
        sync()
        execute("default", SET_NAME, ["new", A])
        execute("default", "DELETE FROM users_user WHERE id = %s", [B])
        client = connect("default", autocommit=True)
        self.addCleanup(client.close)
        self.write = client.execute


class OvertakenTests(ChangedTestCase):
    def other(self) -> None:
        """Change the same users again, and sync them."""
        self.write(SET_NAME, ["newest", A])
        self.write(
            "INSERT INTO users_user SELECT (jsonb_populate_record(u, jsonb_build_object("
            "'id', %s::text, 'email', 'back@example.com'))).* FROM users_user u WHERE id = %s",
            [B, C],
        )
        in_thread(sync)

    def test_a_batch_of_the_log_that_slept_does_nothing(self) -> None:
        for point in (
            ("before", "claim"),
            ("after", "claim commit"),
            ("after", "take_over commit"),
        ):
            with self.subTest(point_name(point)):
                self.setUp()
                with at(point, self.other), self.assertRaises(Overtaken):
                    sync()
                self.assertEqualSides()
                self.assertEqual((copies()[A][1], copies()[B][0]), ("newest", "back@example.com"))

    def test_a_user_s_batch_that_slept_is_done_again(self) -> None:
        for point in (
            ("before", "claim"),
            ("after", "claim commit"),
            ("after", "take_over commit"),
        ):
            with self.subTest(point_name(point)):
                self.setUp()
                with at(point, self.other):
                    copy = sync_user(A)
                assert copy
                self.assertEqual(copy.name, "newest")
                self.assertHeals()

    def test_a_batch_that_sleeps_at_its_end_is_done(self) -> None:
        with at(("after", "finish commit"), self.other):
            sync()
        self.assertHeals()

    def test_a_reconcile_that_slept_stops(self) -> None:
        execute("analytics", "UPDATE analytics_useranalytics SET name = 'tampered'")
        for turn in (1, 2, 3):  # compares, copies what differs, ends
            for point in (("before", "claim"), ("after", "claim commit")):
                with self.subTest(turn=turn, point=point_name(point)):
                    self.setUp()
                    with at(point, self.other, turn=turn), self.assertRaises(Overtaken):
                        sync(full=True)
                    self.assertHeals()

    def test_of_two_reconciles_at_once_one_stops(self) -> None:
        for before, look in (
            ("UPDATE analytics_useranalytics SET name = 'tampered'", "compare"),
            ("DELETE FROM analytics_useranalytics", "nothing_is_missing"),
        ):
            with self.subTest(look):
                execute("analytics", before)
                then = _then(getattr(full, look), lambda: in_thread(lambda: sync(full=True)))
                with mock.patch.object(full, look, then), self.assertRaises(Overtaken):
                    sync(full=True)
                self.assertEqualSides()

    def test_a_restore_while_all_is_compared_is_not_taken_for_equal(self) -> None:
        """Found equal, then put back to what it was: the reconcile must not end as if it knew."""
        stale = execute("analytics", "SELECT token FROM analytics_synccheckpoint")
        with connect("analytics", autocommit=True) as analytics:

            def restore() -> None:
                analytics.execute("UPDATE analytics_useranalytics SET name = 'old'")
                analytics.execute(
                    "UPDATE analytics_synccheckpoint SET reconcile = NULL, token = %s", stale[0]
                )

            compared = mock.patch.object(full, "compare", _then(full.compare, restore))
            with compared, self.assertRaises(Overtaken):
                sync(full=True)
        self.assertHeals()

    def test_a_sync_that_ends_between_two_looks_is_not_taken_for_a_restore(self) -> None:
        read = mock.patch.object(batch, "read_position", _before(batch.read_position, self.other))
        with read:
            turn = begin(USER)
        self.assertEqual(turn.disagreement, "")

    def test_a_log_is_replaced_only_in_one_s_own_turn(self) -> None:
        """Another one's reconcile ends and a change comes, and then this one dies."""

        def other() -> None:
            in_thread(lambda: sync(full=True))
            self.write(SET_NAME, ["newest", A])

        def die() -> None:
            raise SyncFailed("died")

        for point in (("after", "take_over commit"), ("after", "finish commit")):
            with self.subTest(point_name(point)), self.settings(SYNC_LOG_LIMIT=1):
                self.setUp()
                with (
                    at(point, other),
                    at(("before", "claim"), die, turn=2),
                    self.assertRaises((Overtaken, SyncFailed)),
                ):
                    sync()
                self.assertEqual(logged(), [A])
                self.assertHeals()


class LostConnectionTests(ChangedTestCase):
    def lose(self, alias: str) -> Callable[[], None]:
        """End the server's process for this thread's connection."""

        def terminate() -> None:
            pid = connections[alias].connection.info.backend_pid
            with connect(alias, autocommit=True) as client:
                client.execute("SELECT pg_terminate_backend(%s)", [pid])
                query = "SELECT FROM pg_stat_activity WHERE pid = %s"
                wait_until(lambda: not client.execute(query, [pid]).rowcount, "its end")

        return terminate

    def test_an_answer_to_commit_that_is_lost(self) -> None:
        def lost() -> None:
            raise OperationalError("the connection was lost")

        for step in ("claim commit", "take_over commit", "finish commit"):
            with self.subTest(step):
                self.setUp()
                with at(("after", step), lost), self.assertRaises(SyncFailed):
                    sync()
                self.assertHeals()

    def test_a_connection_that_is_lost(self) -> None:
        for point in POINTS if SOAK else APART:
            for alias in ("default", "analytics"):
                with self.subTest(point_name(point), alias=alias):
                    self.setUp()
                    with at(point, self.lose(alias)):
                        self.sync_once(point, alias)
                    # The next one may be the first to notice; the one after it connects again.
                    self.sync_once(point, alias)
                    self.assertHeals()

    def sync_once(self, point: Point, alias: str) -> None:
        """Sync; that it fails is right wherever it needs the connection once more."""
        try:
            sync()
        except DatabaseUnavailable as error:
            self.assertEqual(error.alias, alias)
        except SyncFailed as error:
            self.fail(f"Not recognised as a lost connection: {error}")


def _then(function: Callable[..., object], action: Callable[[], object]) -> Callable[..., object]:
    """Call the action once, after the first call."""
    actions = [action]

    def wrapped(*args: object, **kwargs: object) -> object:
        result = function(*args, **kwargs)
        while actions:
            actions.pop()()
        return result

    return wrapped


def _before(function: Callable[..., object], action: Callable[[], None]) -> Callable[..., object]:
    """Call the action once, before the first call."""
    actions = [action]

    def wrapped(*args: object, **kwargs: object) -> object:
        while actions:
            actions.pop()()
        return function(*args, **kwargs)

    return wrapped
