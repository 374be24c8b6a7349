"""What operators meet: signals, two syncs at once, rights taken away, a disk that is full."""

import signal
import subprocess
from collections.abc import Callable
from contextlib import ExitStack
from io import StringIO
from typing import Any
from unittest import mock

from django.core.management import CommandError, call_command
from django.db import connections
from psycopg.sql import SQL, Identifier

from analytics.models import SyncRun
from analytics.sync import Source, Stop, follow, full, sources
from analytics.sync.batch import begin
from analytics.sync.described import PROFILES
from analytics.sync.turn import Turn
from tests.analytics.sync.support import (
    SHARD,
    USER,
    SyncTestCase,
    add_profiles,
    add_users,
    clear,
    connect,
    copies,
    execute,
    key,
    logged,
    owned_key,
    sync,
)
from tests.outage import pointed_to
from tests.support import environment, run_program, server_down, wait_until

LOGGER = "analytics.sync.follow"
A, B = key(1), key(2)
WAITING = (
    "SELECT 1 FROM pg_stat_activity WHERE application_name = 'follow' AND wait_event_type = 'Lock'"
)


class Requests(Stop):
    """Does something at each pause, and after the last one requests to stop."""

    def __init__(self, *actions: Callable[[], object]) -> None:
        super().__init__()
        self.actions = list(actions)

    def wait(self, seconds: float) -> None:
        if self.actions:
            self.actions.pop(0)()
        if not self.actions:
            self.request()


class FollowTests(SyncTestCase):
    def setUp(self) -> None:
        super().setUp()
        for source in sources():
            sync(source)
        add_users([A])
        add_profiles("shard_1", [A])

    def follow(self, stop: Stop, *, batch_size: int = 10) -> None:
        follow(sources(), interval=1, batch_size=batch_size, stop=stop)

    def test_what_comes_meanwhile_is_copied(self) -> None:
        self.follow(Requests(lambda: add_users([B]), lambda: None))
        self.assertEqualSides()
        self.assertEqualSides(SHARD)
        run = SyncRun.objects.get(source="users")
        self.assertEqual((run.mode, run.upserted, run.error), ("follow", 2, ""))

    def test_a_source_that_fails_is_recorded_and_tried_again(self) -> None:
        other = Source(PROFILES, "shard_2")
        add_profiles("shard_2", [owned_key("shard_2")])
        down = ExitStack()
        self.addCleanup(down.close)
        down.enter_context(server_down("shard_2"))
        with self.assertLogs(LOGGER) as logs:
            self.follow(Requests(lambda: add_users([B]), down.close, lambda: None))
        for source in (USER, SHARD, other):
            self.assertEqualSides(source)
        said = logs.output
        self.assertEqual(len(said), 2, said)
        self.assertIn("Database shard_2 cannot be reached", said[0])
        self.assertIn("works again", said[1])
        failed, worked = SyncRun.objects.filter(source=other.name).order_by("pk")
        self.assertIn("Database shard_2 cannot be reached", failed.error)
        self.assertEqual((worked.upserted, worked.error), (1, ""))

    def test_a_log_past_its_limit_is_emptied(self) -> None:
        sync()
        execute("default", "UPDATE users_user SET name = 'new'")
        add_users([B, key(3)])
        with self.settings(SYNC_LOG_LIMIT=2), self.assertLogs(LOGGER) as logs:
            self.follow(Requests())
        self.assertIn("passed its limit of 2 entries", "".join(logs.output))
        self.assertEqualSides()

    def test_a_reconcile_stops_after_its_batch(self) -> None:
        add_users(map(key, range(3, 1203)))
        clear(["analytics"])
        self.enterContext(mock.patch.object(full, "_PAGES", 12))
        stop = Requests()
        copied = full.sync_pages

        def stopping(*args: object, **kwargs: object) -> object:
            stop.request()
            return copied(*args, **kwargs)  # type: ignore[arg-type]

        with mock.patch.object(full, "sync_pages", stopping), self.assertLogs(LOGGER):
            self.follow(stop)
        self.assertIn("interrupted at page 12", begin(USER).disagreement)
        self.assertTrue(0 < len(copies()) < 1000)
        self.assertHeals()

    def test_one_busy_source_leaves_the_others_their_turns(self) -> None:
        add_users(map(key, range(100, 150)))
        stop = Requests()
        turns: list[str] = []
        finish = Turn.finish

        def finished(turn: Turn, *arguments: Any) -> None:
            finish(turn, *arguments)
            turns.append(turn.source.name)
            if len(turns) == 5:
                stop.request()

        with mock.patch.object(Turn, "finish", finished):
            self.follow(stop, batch_size=1)
        self.assertEqual(turns[:3], ["users", "profiles/shard_1", "users"])
        self.assertHeals()


class ProcessTests(SyncTestCase):
    """The command as a process of its own."""

    def start(self, *arguments: str, name: str = "follow") -> subprocess.Popen[str]:
        program = run_program("manage", "sync_analytics", *arguments, env=environment(name))
        self.addCleanup(program.communicate)
        self.addCleanup(program.kill)
        return program

    def end(self, program: subprocess.Popen[str]) -> str:
        program.send_signal(signal.SIGTERM)
        output, _ = program.communicate(timeout=30)
        self.assertEqual(program.returncode, 0, output)
        return output

    def test_it_follows_until_sigterm_and_lets_no_second_one_in(self) -> None:
        add_users([A])
        program = self.start("--follow", "--interval", "60")
        wait_until(lambda: A in copies(), "the first copy")
        second, _ = self.start(name="second").communicate(timeout=30)
        self.assertEqual(second, "Another sync is running; this one has nothing to do.\n")
        output = self.end(program)  # in the middle of its pause
        self.assertIn("Stopped", output)
        self.assertNotIn("Traceback", output)
        self.assertEqualSides()
        self.assertEqual(SyncRun.objects.get(source="users").mode, "follow")

    def test_sigterm_in_the_middle_of_a_batch(self) -> None:
        add_users([A])
        program = self.start("--follow", "--interval", "0.05")
        wait_until(lambda: A in copies() and not logged(), "the first copy, and the log after it")
        with connect("analytics") as other:
            query = "SELECT FROM analytics_useranalytics WHERE user_id = %s FOR UPDATE"
            other.execute(query, [A])
            execute("default", "UPDATE users_user SET name = 'new'")
            wait_until(lambda: execute("analytics", WAITING), "the batch to wait")
            program.send_signal(signal.SIGTERM)
            self.assertNotEqual(copies()[A][1], "new")
            self.assertIsNone(program.poll())
            other.rollback()
        self.end(program)
        self.assertEqualSides()
        self.assertEqual(copies()[A][1], "new")

    def test_an_interruption_is_one_line_and_no_success(self) -> None:
        add_users([A])
        for number in (signal.SIGINT, signal.SIGTERM):
            with self.subTest(number.name):
                with connect("analytics") as other:
                    other.execute("LOCK TABLE analytics_useranalytics")
                    program = self.start("--full")
                    wait_until(lambda: execute("analytics", WAITING), "it to wait")
                    program.send_signal(number)
                    output, _ = program.communicate(timeout=30)
                self.assertEqual(program.returncode, 1)
                self.assertNotIn("Traceback", output)
                self.assertIn("Interrupted; what was copied stays", output)
                self.assertHeals()


class RightsTests(SyncTestCase):
    """As a role that may do what docs/roles.sql says, less one right."""

    role: str

    def setUp(self) -> None:
        super().setUp()
        # Roles belong to the whole server, which several test databases share.
        self.role = f"limited_{connections['default'].settings_dict['NAME']}"
        for alias in ("default", "analytics"):
            self.grant(alias)
        add_users([A])
        add_profiles("shard_1", [A])
        self.run_command()

    def grant(self, alias: str) -> None:
        role = Identifier(self.role)
        execute(alias, SQL("CREATE ROLE {}").format(role))
        self.addCleanup(execute, alias, SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(role))
        execute(
            alias,
            SQL(
                "GRANT USAGE ON SCHEMA public TO {0};"
                "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {0};"
                "GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {0}"
            ).format(role),
        )

    def run_command(self) -> str:
        output = StringIO()
        with pointed_to({alias: self.limited(alias) for alias in ("default", "analytics")}):
            try:
                call_command("sync_analytics", progress=False, stdout=output, stderr=output)
            except CommandError as error:
                output.write(str(error))
        return output.getvalue()

    def limited(self, alias: str) -> dict[str, object]:
        options = connections[alias].settings_dict["OPTIONS"]
        return {"OPTIONS": {**options, "options": f"-c role={self.role}"}}

    def test_each_right_that_is_revoked(self) -> None:
        for alias, label, right, table in (
            ("default", "primary", "SELECT", "users_user"),
            ("default", "primary", "DELETE", "users_userchange"),
            ("default", "primary", "UPDATE", "analytics_syncposition"),
            ("analytics", "analytics", "INSERT", "analytics_useranalytics"),
            ("analytics", "analytics", "UPDATE", "analytics_synccheckpoint"),
        ):
            with self.subTest(right=right, table=table):
                names = {"table": Identifier(table), "role": Identifier(self.role)}
                SyncRun.objects.all().delete()
                execute("default", "UPDATE users_user SET name = %s", [f"{right} {table}"])
                execute("shard_1", "UPDATE users_profile SET country = %s", [right[:2]])
                execute(alias, SQL(f"REVOKE {right} ON {{table}} FROM {{role}}").format(**names))
                output = self.run_command()
                execute(alias, SQL(f"GRANT {right} ON {{table}} TO {{role}}").format(**names))
                trouble = f"Database {label} stopped the sync: permission denied for table {table}."
                self.assertIn(f"users: {trouble}", output)
                self.assertIn("Not synced: users", output)
                self.assertNotIn("Traceback", output)
                self.assertIn(trouble, SyncRun.objects.get(source="users").error)
                if table != "analytics_synccheckpoint":  # all sources write to that one
                    self.assertEqualSides(SHARD)
                self.assertNothingLost()
                self.assertNotIn("Not synced", self.run_command())
                self.assertEqualSides()
                self.assertEqualSides(SHARD)
