"""The command `sync_analytics`."""

import signal
from datetime import timedelta
from io import StringIO
from uuid import uuid4

from django.core.management import CommandError, call_command
from django.db import connections

from analytics.models import SyncRun, UserAnalytics
from analytics.sync.lock import LOCK
from tests.analytics.sync.support import (
    SHARD,
    SyncTestCase,
    add_profiles,
    add_users,
    connect,
    copies,
    execute,
    key,
    logged,
)
from tests.support import environment, run_program, server_down, wait_until


def run(*arguments: str) -> str:
    output = StringIO()
    call_command("sync_analytics", *arguments, "--no-progress", stdout=output, stderr=output)
    return output.getvalue()


class RunTests(SyncTestCase):
    def setUp(self) -> None:
        super().setUp()
        add_users([key(1), key(2)])
        add_profiles("shard_1", [key(1)])

    def test_the_first_run_compares_everything_and_the_next_reads_the_log(self) -> None:
        first = run()
        self.assertIn("users: comparing everything: nothing was synced yet", first)
        self.assertRegex(
            first, r"3 upserted, 0 deleted, 3 unchanged in \d+\.\d seconds; lag 0\.0 s"
        )
        self.assertEqualSides()
        self.assertEqualSides(SHARD)
        execute("default", "DELETE FROM users_user WHERE id = %s", [key(1)])
        second = run()
        self.assertNotIn("comparing", second)
        self.assertRegex(second, r"0 upserted, 1 deleted, 0 unchanged")
        self.assertEqualSides()

    def test_each_source_leaves_a_record(self) -> None:
        run("--full")
        found = {r.source: r for r in SyncRun.objects.all()}
        self.assertEqual(
            set(found), {"users", "profiles/shard_1", "profiles/shard_2", "profiles/shard_3"}
        )
        users = found["users"]
        self.assertEqual((users.mode, users.upserted, users.error), ("full", 2, ""))
        self.assertEqual(users.lag, timedelta())
        assert users.finished_at
        self.assertLess(users.started_at, users.finished_at)

    def test_a_source_that_is_down_does_not_stop_the_others(self) -> None:
        with server_down("default"), self.assertRaisesRegex(CommandError, "Not synced: users,"):
            run()
        self.assertEqualSides(SHARD)
        self.assertIn("primary", SyncRun.objects.get(source="users").error)
        run()
        self.assertEqualSides()

    def test_analytics_down_is_one_sentence(self) -> None:
        with server_down("analytics"), self.assertRaisesRegex(CommandError, "analytics cannot be"):
            run()
        self.assertEqual(len(logged()), 2)

    def test_a_right_that_is_missing_is_one_sentence(self) -> None:
        run()
        execute("default", "UPDATE users_user SET name = 'new'")
        execute("analytics", "ALTER TABLE analytics_useranalytics RENAME TO hidden")
        try:
            with self.assertRaisesRegex(CommandError, "Not synced: users,"):
                run()
        finally:
            execute("analytics", "ALTER TABLE hidden RENAME TO analytics_useranalytics")
        self.assertIn("analytics", SyncRun.objects.exclude(error="").get().error)
        self.assertHeals()

    def test_beside_another_sync_it_says_so_and_does_nothing(self) -> None:
        with connect("analytics") as other:
            other.execute("SELECT pg_advisory_lock(%s)", [LOCK])
            self.assertEqual(run(), "Another sync is running; this one has nothing to do.\n")
        self.assertEqual(copies(), {})

    def test_it_lets_go_of_the_lock(self) -> None:
        run()
        with connect("analytics") as other:
            row = other.execute("SELECT pg_try_advisory_lock(%s)", [LOCK]).fetchone()
        self.assertEqual(row, (True,))


class LookTests(SyncTestCase):
    def setUp(self) -> None:
        super().setUp()
        add_users([key(1), key(2)])
        run()

    def test_verify_names_bucket_and_ids_and_changes_nothing(self) -> None:
        self.assertEqual(run("--verify"), "Every copy equals its row.\n")
        UserAnalytics.objects.filter(pk=key(1)).update(name="tampered")
        output = StringIO()
        with self.assertRaisesRegex(CommandError, "1 rows differ"):
            call_command("sync_analytics", "--verify", stdout=output)
        self.assertRegex(output.getvalue(), rf"users, bucket 0.* to .*: {key(1)}\n")
        self.assertEqual(UserAnalytics.objects.get(pk=key(1)).name, "tampered")

    def test_status_and_dry_run_show_the_log_and_do_nothing(self) -> None:
        execute("default", "UPDATE users_user SET name = 'new'")
        for option in ("--status", "--dry-run"):
            self.assertRegex(run(option), r"users +2 changes in the log, \d+ KiB, lag \d+\.\d s")
        self.assertRegex(run("--status"), r"incremental users +2 upserted, 0 deleted")
        self.assertEqual(len(logged()), 2)

    def test_status_says_when_a_reconcile_is_owed(self) -> None:
        execute("analytics", "UPDATE analytics_synccheckpoint SET token = NULL")
        self.assertIn("will compare everything: nothing was synced yet", run("--dry-run"))

    def test_status_of_a_server_that_is_down(self) -> None:
        with server_down("shard_2"), self.assertRaisesRegex(CommandError, "profiles/shard_2"):
            run("--status")


class UserTests(SyncTestCase):
    def test_one_user(self) -> None:
        add_users([key(1), key(2)])
        self.assertIn(f"Copied {key(1)}@example.com", run("--user", str(key(1))))
        self.assertEqual(set(copies()), {key(1)})
        self.assertIn("no such account", run("--user", str(uuid4())))

    def test_what_is_no_id(self) -> None:
        for wrong in ("ada", ""):
            with self.subTest(wrong), self.assertRaisesRegex(CommandError, "no UUID"):
                run("--user", wrong)

    def test_numbers_that_are_none(self) -> None:
        for arguments in (("--batch-size", "0"), ("--interval", "-1"), ("--batch-size", "many")):
            with self.subTest(arguments), self.assertRaisesRegex(CommandError, "above 0"):
                run(*arguments)


class FollowTests(SyncTestCase):
    def test_it_follows_until_sigterm(self) -> None:
        add_users([key(1)])
        program = run_program(
            "manage", "sync_analytics", "--follow", "--interval", "0.05", env=environment("follow")
        )
        self.addCleanup(program.kill)
        wait_until(lambda: key(1) in copies(), "the first copy")
        add_users([key(2)])
        wait_until(lambda: key(2) in copies(), "the second copy")
        program.send_signal(signal.SIGTERM)
        output, _ = program.communicate(timeout=30)
        self.assertEqual(program.returncode, 0, output)
        self.assertIn("Stopped", output)
        self.assertEqualSides()
        self.assertEqual(SyncRun.objects.get(source="users").mode, "follow")
        connections["analytics"].close()
