"""The command `sync_analytics`."""

from io import StringIO
from unittest import mock
from uuid import uuid4

from django.core.management import CommandError, call_command
from django.db import connections
from django.test import TestCase

from analytics.models import SyncRun, UserAnalytics
from analytics.sync import full
from tests.support import ServerLog, server_down
from users.models import User


def sync(*arguments: str) -> str:
    output = StringIO()
    call_command("sync_analytics", *arguments, stdout=output)
    return output.getvalue()


class SyncCommandTests(TestCase):
    databases = "__all__"
    ada: User

    @classmethod
    def setUpTestData(cls):
        cls.ada = User.objects.create_user("ada@example.com")
        User.objects.create_user("bob@example.com")

    def assertRun(self, mode: str, *counts: int, error: str = ""):
        """Assert what the only record says."""
        run = SyncRun.objects.get()
        self.assertEqual((run.mode, run.upserted, run.deleted, run.unchanged), (mode, *counts))
        assert run.finished_at
        self.assertLess(run.started_at, run.finished_at)
        self.assertIn(error, run.error)
        self.assertEqual(bool(run.error), bool(error))

    def test_copies_all_and_says_so_in_one_line(self):
        for arguments in ((), ("--full",), ("--full", "--no-progress")):
            with self.subTest(arguments):
                SyncRun.objects.all().delete()
                UserAnalytics.objects.all().delete()
                line = r"\A2 upserted, 0 deleted, 0 unchanged in \d+\.\d seconds\.\n\Z"
                self.assertRegex(sync(*arguments), line)
                self.assertEqual(UserAnalytics.objects.count(), 2)
                self.assertRun("full", 2, 0, 0)

    def test_copies_one_user(self):
        self.assertRegex(sync("--user", str(self.ada.pk)), r"\A1 upserted, 0 deleted, 0 unch")
        self.assertEqual(UserAnalytics.objects.get().email, "ada@example.com")
        self.assertRun("user", 1, 0, 0)

    def test_of_a_user_who_is_gone_it_deletes_the_copy(self):
        self.assertRegex(sync("--user", str(uuid4())), r"\A0 upserted, 0 deleted, 0 unchanged")

    def test_refuses_what_is_no_id(self):
        for wrong in ("ada", ""):
            with self.subTest(wrong), self.assertRaisesRegex(CommandError, "is no UUID"):
                sync("--user", wrong)
        self.assertFalse(UserAnalytics.objects.exists())

    def test_a_second_one_at_once_says_so_and_succeeds(self):
        other = ServerLog("analytics").connection
        self.addCleanup(other.close)
        other.execute("SELECT pg_advisory_lock(%s)", [full.LOCK])
        self.assertIn("is running", sync())
        self.assertFalse(SyncRun.objects.exists())

    def test_a_failure_is_one_sentence_that_names_the_database_and_is_recorded(self):
        with server_down("default"), self.assertRaisesRegex(CommandError, "Database primary"):
            sync()
        self.assertRun("full", 0, 0, 0, error="Database primary cannot be reached")

    def test_with_analytics_down_the_failure_is_reported_alone(self):
        with server_down("analytics"), self.assertRaisesRegex(CommandError, "Database analytics"):
            sync()
        self.assertFalse(SyncRun.objects.exists())

    def test_the_first_failure_is_the_one_reported(self):
        with connections["analytics"].cursor() as cursor:
            cursor.execute("ALTER TABLE analytics_syncrun RENAME TO elsewhere")
        with server_down("default"), self.assertRaisesRegex(CommandError, "Database primary"):
            sync()

    def test_missing_tables_are_no_stack_trace(self):
        with connections["analytics"].cursor() as cursor:
            cursor.execute("ALTER TABLE analytics_useranalytics RENAME TO elsewhere")
        with self.assertRaisesRegex(CommandError, 'Database analytics .*"analytics_useranalytics"'):
            sync()

    def test_an_interrupted_run_is_recorded(self):
        interrupted = mock.patch.object(full, "_apply", side_effect=KeyboardInterrupt)
        with interrupted, self.assertRaises(KeyboardInterrupt):
            sync()
        self.assertRun("full", 0, 0, 0, error="KeyboardInterrupt")
