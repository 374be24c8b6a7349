"""A sync that dies at any point, and the next one."""

import subprocess
from unittest import mock

from analytics.sync import full
from analytics.sync.batch import begin
from tests.analytics.sync import SOAK, driver
from tests.analytics.sync.steps import APART, POINTS, Point, point_name
from tests.analytics.sync.support import (
    USER,
    SyncTestCase,
    add_users,
    execute,
    key,
    sync,
)
from tests.support import environment, run_program

# One for each state that a crash can leave on the disks: claimed, written, finished.
STATES = [("after", "take_over"), ("after", "finish"), ("after", "finish commit")]
ALL = range(1, 1201)  # more than the thousand from which on a reconcile reads whole pages


class CrashTests(SyncTestCase):
    aliases = ("default", "analytics")
    program: subprocess.Popen[str]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.program = run_program("tests.analytics.sync.driver", env=environment("crashing"))
        cls.addClassCleanup(cls.program.communicate)

    def crash(self, point: Point, *, turn: int = 1) -> None:
        """Sync in a process that dies there, and assert that it came that far."""
        assert self.program.stdin and self.program.stdout
        self.program.stdin.write(f"{turn} {point_name(point)}\n")
        self.program.stdin.flush()
        answer = self.program.stdout.readline()
        if answer != f"{driver.CRASHED}\n":
            self.fail(f"It ended with {answer}")

    def change(self) -> None:
        """Change users so that the driver needs two batches: an update, a delete, an insert."""
        execute("default", "UPDATE users_user SET name = 'new' WHERE id = %s", [key(1)])
        execute("default", "DELETE FROM users_user WHERE id = %s", [key(2)])
        add_users([key(4)])

    def test_in_a_batch_of_the_log(self) -> None:
        for turn in (1, 2):
            for point in POINTS if SOAK else APART if turn == 1 else STATES:
                with self.subTest(turn=turn, point=point_name(point)):
                    self.setUp()
                    add_users([key(1), key(2), key(3)])
                    sync()
                    self.change()
                    self.crash(point, turn=turn)
                    self.assertHeals()

    def test_again_and_again(self) -> None:
        """Each sync dies one step further in its first batch, until one comes through."""
        add_users([key(1), key(2), key(3)])
        sync()
        self.change()
        for point in APART[:-2]:
            self.crash(point)
            self.assertNothingLost()
        self.assertHeals()

    def test_in_a_reconcile(self) -> None:
        # 1 compares, 2 begins the pages, 3 and 4 copy them, 5 compares again, 6 deletes what is
        # gone, 7 ends it.
        for turn in range(1, 8):
            for point in POINTS if SOAK else STATES:
                with self.subTest(turn=turn, point=point_name(point)):
                    self.setUp()
                    self.prepare_reconcile()
                    self.crash(point, turn=turn)
                    execute("default", "UPDATE users_user SET name = 'x' WHERE id = %s", [key(9)])
                    self.assertHeals()

    def prepare_reconcile(self) -> None:
        """Leave copies of users who are gone, and no checkpoint."""
        add_users(map(key, ALL))
        execute("analytics", _STALE, [[key(number) for number in (3001, 3002)]])
        execute("default", "TRUNCATE users_userchange")

    def test_the_pages_go_on_where_they_were(self) -> None:
        self.prepare_reconcile()
        self.crash(("before", "claim"), turn=4)
        state = begin_state()
        self.assertEqual((state["step"], state["page"]), ("pages", driver.PAGES))
        with mock.patch.object(full, "sync_pages", wraps=full.sync_pages) as copied:
            sync()
        self.assertEqual(copied.call_args_list[0].args[1], driver.PAGES)
        self.assertEqualSides()


def begin_state() -> dict[str, object]:
    state = begin(USER).reconcile
    assert state
    return state


_STALE = """
    INSERT INTO analytics_useranalytics (user_id, email, name, is_active, is_staff, date_joined)
    SELECT id, 'gone@example.com', '', true, true, now() FROM unnest(%s::uuid[]) AS id
"""
