"""Importing users: what is stored after each step that can fail or be interrupted."""

import signal
import threading
from collections.abc import Mapping
from typing import Any
from unittest import mock

from django.db import DatabaseError, OperationalError, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.test import SimpleTestCase, TestCase, TransactionTestCase

from sharding import conf
from tests.sharding.ids import ids_on_each_shard
from tests.support import environment, run_program, server_down, wait_until
from tests.users.importing import Folder, number_of_profiles, profile_of
from users.importing import ImportFailed, Options, Totals, import_users, writing
from users.importing.parallel import at_once
from users.models import Profile, User


class FailureTests(Folder, TestCase):
    """What is stored after each step that can fail; here transactions are savepoints."""

    databases = "__all__"

    def setUp(self) -> None:
        super().setUp()
        self.keys = ids_on_each_shard()
        self.people = [
            {"id": str(key), "email": f"{alias}@example.com", "bio": "new"}
            for alias, key in self.keys.items()
        ]
        self.file = self.csv(*self.people)

    def stored(self) -> tuple[int, int]:
        return User.objects.count(), number_of_profiles()

    def assert_healed(self) -> None:
        self.assertEqual(import_users(self.file).rejected, 0)
        self.assertEqual(self.stored(), (3, 3))
        for person in self.people:
            self.assertEqual(profile_of(person["email"]).bio, "new")

    def test_no_account_is_stored_while_a_shard_is_down(self):
        with server_down("shard_2"), self.assertRaisesRegex(ImportFailed, "shard_2 cannot be"):
            import_users(self.file)
        self.assertEqual(User.objects.count(), 0)
        self.assertFalse(Profile.objects.using("shard_2").exists())
        self.assert_healed()

    def test_accounts_on_the_other_shards_are_imported_while_one_is_down(self):
        rest = [person for person in self.people if "shard_2" not in person["email"]]
        with server_down("shard_2"):
            self.assertEqual(import_users(self.csv(*rest)).created, 2)

    def test_nothing_is_stored_while_the_primary_is_down(self):
        with server_down("default"), self.assertRaisesRegex(ImportFailed, "cannot be reached"):
            import_users(self.file)
        self.assertEqual(self.stored(), (0, 0))

    def test_a_shard_that_refuses(self):
        def refuse(shard: BaseDatabaseWrapper, defaults: Mapping[str, Any]) -> None:
            original(shard, defaults)
            if shard.alias == "shard_3":
                raise DatabaseError("slot 7 has moved\nDETAIL: to shard_4")

        original = writing._insert_profiles
        with (
            mock.patch.object(writing, "_insert_profiles", refuse),
            self.assertRaisesRegex(ImportFailed, "Lines 2 to 4 were refused: slot 7 has moved DET"),
        ):
            import_users(self.file)
        self.assertEqual(User.objects.count(), 0)
        self.assertFalse(Profile.objects.using("shard_3").exists())
        self.assert_healed()

    def test_a_primary_that_does_not_commit_leaves_profiles_which_the_next_run_replaces(self):
        def write_then_fail(*arguments: Any) -> None:
            original(*arguments)
            raise OperationalError("lost")

        original = writing._write_profiles
        old = self.csv(*(person | {"bio": "old"} for person in self.people), name="old.csv")
        with (
            mock.patch.object(writing, "_write_profiles", write_then_fail),
            self.assertRaises(ImportFailed),
        ):
            import_users(old)
        self.assertEqual(self.stored(), (0, 3))
        self.assert_healed()

    def test_batches_before_the_failure_stay(self):
        totals = Totals()
        with server_down("shard_3"), self.assertRaises(ImportFailed):
            import_users(self.file, Options(batch_size=1), totals=totals)
        self.assertEqual((totals.created, totals.last_line, self.stored()), (2, 3, (2, 2)))
        self.assert_healed()


class CommitTests(Folder, TransactionTestCase):
    databases = "__all__"

    def test_shards_commit_before_the_primary(self):
        def write_then_look(*arguments: Any) -> None:
            original(*arguments)
            primary = connections["default"].copy()
            with primary.cursor() as cursor:
                cursor.execute("SELECT count(*) FROM users_user")
                seen.append(cursor.fetchone())
            primary.close()
            for shard in conf.shards():
                self.assertFalse(connections[shard].in_atomic_block)

        seen: list[Any] = []
        original = writing._write_profiles
        keys = ids_on_each_shard()
        file = self.csv(*({"id": key, "email": f"{a}@example.com"} for a, key in keys.items()))
        with mock.patch.object(writing, "_write_profiles", write_then_look):
            import_users(file)
        self.assertEqual((seen, User.objects.count(), number_of_profiles()), ([(0,)], 3, 3))

    def test_sigterm_while_waiting_for_lines(self):
        program = run_program(
            "manage", "import_users", "-", "--batch-size=2", env=environment("import")
        )
        assert program.stdin and program.stdout
        program.stdin.write("email\na@example.com\nb@example.com\nc@example.com\n")
        program.stdin.flush()
        wait_until(User.objects.count, "the first batch")
        program.send_signal(signal.SIGTERM)
        output, _ = program.communicate(timeout=20)
        self.assertEqual(program.returncode, 143)
        self.assertIn("All lines up to 3 are done (2 created", output)
        self.assertEqual((User.objects.count(), number_of_profiles()), (2, 2))


class AtOnceTests(SimpleTestCase):
    databases = "__all__"

    def test_an_interrupt_ends_what_runs(self):
        def wait(shard: BaseDatabaseWrapper) -> None:
            with shard.cursor() as cursor:
                started.wait(5)
                cursor.execute("SELECT pg_sleep(60)")

        def interrupt() -> None:
            started.wait(5)
            signal.pthread_kill(main, signal.SIGINT)

        main = threading.main_thread().ident or 0
        started = threading.Barrier(len(conf.shards()) + 1)
        thread = threading.Thread(target=interrupt)
        # A shell that starts the tests in the background has them ignore the signal.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        self.addCleanup(signal.signal, signal.SIGINT, before)
        thread.start()
        with self.assertRaises(KeyboardInterrupt):
            at_once(dict.fromkeys(conf.shards(), wait))
        thread.join()

    def test_all_end_before_the_first_error_is_raised(self):
        def work(shard: BaseDatabaseWrapper) -> None:
            if shard.alias == "shard_1":
                raise LookupError(shard.alias)
            with shard.cursor() as cursor:
                cursor.execute("SELECT pg_sleep(0.1)")
            ended.append(shard.alias)

        ended: list[str] = []
        with self.assertRaises(LookupError):
            at_once(dict.fromkeys(conf.shards(), work))
        self.assertEqual(sorted(ended), ["shard_2", "shard_3"])
