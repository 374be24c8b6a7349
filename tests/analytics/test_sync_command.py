"""The command `sync_analytics`."""

from collections.abc import Callable
from datetime import timedelta
from io import StringIO
from unittest import mock
from uuid import uuid4

from django.core.management import CommandError, call_command
from django.utils import timezone

from analytics.models import SyncRun, UserAnalytics
from analytics.sync import Overtaken, full, sources, sync_user
from analytics.sync import run as run_module
from analytics.sync.batch import begin
from analytics.sync.lock import LOCK
from sharding import slot_cache
from tests.analytics.sync.steps import at
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
    in_thread,
    key,
    logged,
    owned_key,
)
from tests.support import server_down


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

    def test_a_table_that_is_missing_is_one_sentence(self) -> None:
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

    def test_an_interrupted_one_says_what_it_resumes(self) -> None:
        add_users(map(key, range(3, 1203)))
        self.enterContext(mock.patch.object(full, "_PAGES", 12))
        for interruption in (KeyboardInterrupt, SystemExit):
            with self.subTest(interruption.__name__):
                clear(["analytics"])
                with (
                    at(("before", "claim"), _raising(interruption), turn=3),
                    self.assertRaisesRegex(CommandError, "Interrupted; what was copied stays"),
                ):
                    run("--full")
                self.assertIn("Interrupted", SyncRun.objects.get(source="users").error)
                self.assertIn("interrupted at page 12 of the table", run("--dry-run"))
                resumed = run("--full")
                self.assertIn("users: comparing everything: the last reconcile was", resumed)
                self.assertIn("users: going on from page 12 of the table", resumed)
                self.assertEqualSides()

    def test_a_progress_bar_on_a_terminal_alone(self) -> None:
        class Terminal(StringIO):
            def isatty(self) -> bool:
                return True

        for stream, progress, shown in (
            (Terminal(), True, True),
            (Terminal(), False, False),
            (StringIO(), True, False),
        ):
            clear(["analytics"])
            with mock.patch("sys.stderr", stream):
                call_command("sync_analytics", progress=progress, stdout=StringIO())
            self.assertEqual("users: " in stream.getvalue() and " rows" in stream.getvalue(), shown)

    def test_old_records_are_dropped(self) -> None:
        for days in (1, 100):
            SyncRun.objects.create(mode="old", started_at=timezone.now() - timedelta(days=days))
        run()
        self.assertEqual(SyncRun.objects.filter(mode="old").count(), 1)

    def test_beside_another_sync_it_says_so_and_does_nothing(self) -> None:
        with connect("analytics") as other:
            other.execute("SELECT pg_advisory_lock(%s)", [LOCK])
            self.assertEqual(run(), "Another sync is running; this one has nothing to do.\n")
        self.assertEqual(copies(), {})

    def test_one_that_is_overtaken_begins_again(self) -> None:
        """By the sync of one user, which waits for no lock and leaves the log's other entries."""
        run()
        execute("default", "UPDATE users_user SET name = 'new'")
        with at(("before", "claim"), lambda: in_thread(lambda: sync_user(key(1)))):
            run()
        self.assertEqual(copies()[key(2)][1], "new")
        self.assertEqualSides()

    def test_one_that_is_overtaken_always_is_not_done(self) -> None:
        overtaken = mock.patch.object(run_module, "sync_log", side_effect=Overtaken("too busy"))
        run()
        with overtaken as tried, self.assertRaisesRegex(CommandError, "Not synced: users,"):
            run()
        self.assertEqual(tried.call_count, 5 * len(sources()))

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

    def test_verify_goes_on_past_a_source_that_is_down(self) -> None:
        UserAnalytics.objects.filter(pk=key(1)).update(name="tampered")
        SyncRun.objects.all().delete()
        with server_down("shard_1"):
            with self.assertRaisesRegex(CommandError, "1 rows differ.*compared: profiles/shard_1"):
                run("--verify")
            UserAnalytics.objects.filter(pk=key(1)).update(name="first")
            with self.assertRaisesRegex(CommandError, "Not compared: profiles/shard_1"):
                run("--verify")
        errors = SyncRun.objects.filter(mode="verify", source="users").values_list("error")
        self.assertCountEqual(errors, [("1 rows differ.",), ("",)])
        self.assertIn("shard_1", SyncRun.objects.filter(source="profiles/shard_1")[0].error)

    def test_verify_of_many_shows_some(self) -> None:
        UserAnalytics.objects.all().delete()
        add_users(map(key, range(3, 1203)))
        output = StringIO()
        with self.assertRaisesRegex(CommandError, "1202 rows differ"):
            call_command("sync_analytics", "--verify", stdout=output)
        lines = output.getvalue().splitlines()
        self.assertEqual((len(lines), lines[-1]), (21, "users: and more buckets."))

    def test_status_shows_the_log_the_checkpoint_and_the_last_runs(self) -> None:
        execute("default", "UPDATE users_user SET name = 'new'")
        token = str(begin(USER).token)[:8]
        shown = run("--status")
        self.assertRegex(
            shown, rf"users +2 changes in the log, \d+ KiB, lag \d+\.\d s, checkpoint {token}\n"
        )
        self.assertRegex(shown, r"incremental users +2 upserted, 0 deleted")
        self.assertEqual(len(logged()), 2)

    def test_a_long_lag_is_shown_in_days_and_hours(self) -> None:
        execute("default", "UPDATE users_user SET name = 'new'")
        execute("default", "UPDATE users_userchange SET at = at - interval '49 hours'")
        self.assertIn("lag 2 days, 1:00:0", run("--status"))

    def test_dry_run_says_what_would_be_done_and_does_nothing(self) -> None:
        self.assertRegex(run("--dry-run"), r"users +would find nothing to do\n")
        execute("default", "UPDATE users_user SET name = 'new'")
        self.assertRegex(run("--dry-run"), r"users +would copy 2 changes\n")
        with self.settings(SYNC_LOG_LIMIT=1):
            self.assertRegex(run("--dry-run"), r"users +would compare everything: the log has pass")
            self.assertIn("will compare everything: the log has passed", run("--status"))
        execute("analytics", "UPDATE analytics_synccheckpoint SET token = NULL")
        self.assertRegex(run("--dry-run"), r"users +would compare everything: nothing was synced")
        self.assertIn("will compare everything: nothing was synced yet", run("--status"))
        self.assertEqual(len(logged()), 2)
        self.assertNotEqual(copies()[key(1)][1], "new")

    def test_a_log_that_says_truncated(self) -> None:
        execute("default", "TRUNCATE users_user CASCADE")
        self.assertRegex(run("--dry-run"), r"users +would compare everything: the table was trunc")
        self.assertIn("will compare everything: the table was truncated", run("--status"))

    def test_looking_writes_nothing(self) -> None:
        clear(self.aliases)
        for option in ("--status", "--dry-run"):
            run(option)
        for alias in self.aliases:
            table = "synccheckpoint" if alias == "analytics" else "syncposition"
            self.assertEqual(execute(alias, f"SELECT FROM analytics_{table}"), [])

    def test_status_beside_a_server_that_is_down(self) -> None:
        for down, shown, named in (
            ("shard_2", "incremental users", "Not reached: profiles/shard_2,"),
            ("analytics", "changes in the log", "Not reached: users, profiles/shard_1,"),
        ):
            execute("default", "UPDATE users_user SET name = %s", [down])
            output = StringIO()
            with self.subTest(down), server_down(down):
                with self.assertRaisesRegex(CommandError, named):
                    call_command("sync_analytics", "--status", stdout=output, stderr=output)
                self.assertIn(shown, output.getvalue())
                self.assertIn(f"Database {down} cannot be reached", output.getvalue())


class UserTests(SyncTestCase):
    def test_one_user(self) -> None:
        add_users([key(1), key(2)])
        self.assertIn(f"Copied {key(1)}@example.com", run("--user", str(key(1))))
        self.assertEqual(set(copies()), {key(1)})
        self.assertIn("no such account", run("--user", str(uuid4())))
        record = SyncRun.objects.filter(mode="user", source="users").earliest()
        self.assertEqual((record.upserted, record.error), (1, ""))

    def test_one_user_whose_shard_is_down(self) -> None:
        user_id = owned_key("shard_2")
        add_users([user_id])
        with server_down("shard_2"), self.assertRaisesRegex(CommandError, "Not copied: profiles/"):
            run("--user", str(user_id))
        self.assertEqual(set(copies()), {user_id})

    def test_what_is_no_id(self) -> None:
        for wrong in ("ada", ""):
            with self.subTest(wrong), self.assertRaisesRegex(CommandError, "no UUID"):
                run("--user", wrong)

    def test_one_user_where_nothing_was_migrated(self) -> None:
        execute("default", "ALTER TABLE sharding_slot RENAME TO hidden")
        self.addCleanup(slot_cache.clear)
        self.addCleanup(execute, "default", "ALTER TABLE hidden RENAME TO sharding_slot")
        slot_cache.clear()
        with self.assertRaisesRegex(CommandError, "no slot map yet. Run `manage.py migrate`"):
            run("--user", str(key(1)))

    def test_numbers_that_are_none(self) -> None:
        for arguments in (
            ("--batch-size", "0"),
            ("--batch-size", "many"),
            ("--batch-size", "1e3"),
            ("--batch-size", "9" * 20),
            ("--follow", "--interval", "-1"),
            ("--follow", "--interval", "nan"),
            ("--follow", "--interval", "inf"),
        ):
            with self.subTest(arguments), self.assertRaisesRegex(CommandError, "above 0 and up to"):
                run(*arguments)

    def test_options_that_contradict_each_other(self) -> None:
        for first, second in (("--full", "--verify"), ("--follow", "--status")):
            with self.assertRaisesRegex(CommandError, f"{second}: not allowed with .*{first}"):
                run(first, second)

    def test_options_without_effect(self) -> None:
        with self.assertRaisesRegex(CommandError, "--interval is for --follow"):
            run("--interval", "1")
        for option in ("--verify", "--status", "--dry-run"):
            with self.assertRaisesRegex(CommandError, f"{option} has no batches"):
                run(option, "--batch-size", "5")


def _raising(kind: type[BaseException]) -> Callable[[], None]:
    def interrupt() -> None:
        raise kind

    return interrupt
