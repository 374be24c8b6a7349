"""Importing users: what is stored where, conflicts, failures, the command."""

import contextlib
import csv
import io
import json
import re
import signal
import sys
import tempfile
import threading
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest import mock

import hypothesis.extra.django
from django.core.management import CommandError, call_command
from django.db import DatabaseError, OperationalError, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.test import SimpleTestCase, TestCase, TransactionTestCase
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sharding import conf, get_shard_for_user_id
from tests.sharding.ids import id_on, ids_on_each_shard
from tests.support import environment, run_program, server_down, wait_until
from users.importing import ImportFailed, Options, Totals, import_users, writing
from users.importing.parallel import at_once
from users.models import Profile, User

Person = Mapping[str, Any]


class Folder:
    """A temporary folder with files to import."""

    path: Path

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)  # type: ignore[attr-defined]
        self.path = Path(folder.name)
        super().setUp()  # type: ignore[misc]

    def csv(self, *people: Person, name: str = "users.csv") -> str:
        """Write a CSV file with the columns that anybody has."""
        with (self.path / name).open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, max(people, key=len))
            writer.writeheader()
            writer.writerows(people)
        return str(self.path / name)

    def ndjson(self, *people: Person) -> str:
        path = self.path / "users.ndjson"
        path.write_text("".join(json.dumps(person) + "\n" for person in people))
        return str(path)

    def rejected(self, name: str = "users.csv.rejected") -> list[tuple[int, str]]:
        """Line and reason of the rejected lines."""
        with (self.path / name).open(newline="", encoding="utf-8") as file:
            return [(int(row["line"]), row["reason"]) for row in csv.DictReader(file)]


def people(number: int, **values: Any) -> list[dict[str, Any]]:
    return [
        {"id": str(uuid.uuid4()), "email": f"user{n}@example.com", **values} for n in range(number)
    ]


def counts(totals: Totals) -> tuple[int, int, int, int]:
    return totals.created, totals.updated, totals.skipped, totals.rejected


def profile_of(email: str) -> Profile:
    """The one profile of the account, on the shard that owns it and nowhere else."""
    key = User.objects.get(email=email).pk
    found = [
        profile
        for shard in conf.shards()
        for profile in Profile.objects.using(shard).filter(pk=key)
    ]
    assert [profile._state.db for profile in found] == [get_shard_for_user_id(key)], found
    return found[0]


def empty() -> None:
    User.objects.all()._raw_delete("default")
    for shard in conf.shards():
        Profile.objects.using(shard).all()._raw_delete(shard)


def number_of_profiles() -> int:
    return sum(Profile.objects.using(shard).count() for shard in conf.shards())


class StoringTests(Folder, TestCase):
    databases = "__all__"

    def test_every_column(self):
        key = uuid.uuid4()
        person = {
            "id": key,
            "email": "Ada@Example.com",
            "name": "Ada L.",
            "is_active": "false",
            "date_joined": "2025-02-28T12:00:00+01:00",
            "last_login": "2026-01-01 08:30",
            "display_name": "ada",
            "country": "gb",
            "plan": "team",
            "bio": "one\ntwo",
            "settings": '{"theme": "dark"}',
        }
        self.assertEqual(counts(import_users(self.csv(person))), (1, 0, 0, 0))
        user, profile = User.objects.get(), profile_of("ada@example.com")
        joined = datetime(2025, 2, 28, 11, tzinfo=UTC)
        self.assertEqual((user.pk, user.name, user.is_active), (key, "Ada L.", False))
        self.assertEqual(user.date_joined, joined)
        self.assertEqual(user.last_login, datetime(2026, 1, 1, 8, 30, tzinfo=UTC))
        self.assertEqual((profile.display_name, profile.country), ("ada", "GB"))
        self.assertEqual((profile.plan, profile.bio), ("team", "one\ntwo"))
        self.assertEqual((profile.settings, profile.created_at), ({"theme": "dark"}, joined))

    def test_only_emails(self):
        before = datetime.now(UTC)
        import_users(self.csv({"email": "a@example.com"}, {"email": "b@example.com"}))
        for user in User.objects.all():
            profile = profile_of(user.email)
            self.assertEqual(user.pk.version, 4)
            self.assertLessEqual(before, user.date_joined)
            self.assertEqual(user.date_joined, profile.created_at)
            self.assertEqual((user.is_active, user.last_login, user.name), (True, None, ""))
            self.assertEqual((profile.plan, profile.settings, profile.bio), ("free", {}, ""))

    def test_nobody_gets_rights_or_a_password(self):
        import_users(self.csv({"email": "a@example.com"}))
        user = User.objects.get()
        self.assertFalse(user.is_staff or user.is_superuser or user.has_usable_password())

    def test_each_profile_stands_on_its_shard(self):
        keys = ids_on_each_shard()
        import_users(self.csv(*({"id": k, "email": f"{a}@example.com"} for a, k in keys.items())))
        for alias, key in keys.items():
            self.assertEqual(Profile.objects.using(alias).get().pk, key)

    def test_text_that_copy_could_misread(self):
        texts = [
            r"\N",
            r"\.",
            "\\",
            "\t",
            "a\nb",
            "a\r\nb",
            "\r",
            '"',
            "'",
            "\u2028",
            "😀",
            "",
            ",",
            "x\\",
        ]
        found = people(len(texts))
        for person, text in zip(found, texts, strict=True):
            person |= {"name": text, "display_name": text, "bio": text}
            person["settings"] = json.dumps({text: text})
        for write, name in ((self.csv, "users.csv"), (self.ndjson, "users.ndjson")):
            with self.subTest(name):
                given = found
                if write == self.ndjson:
                    given = [p | {"settings": json.loads(p["settings"])} for p in found]
                self.assertEqual(import_users(write(*given)).rejected, 0)
                for person, text in zip(found, texts, strict=True):
                    user, profile = User.objects.get(pk=person["id"]), profile_of(person["email"])
                    self.assertEqual([user.name, profile.display_name, profile.bio], [text] * 3)
                    self.assertEqual(profile.settings, {text: text})
                empty()

    def test_batches(self):
        found = people(7)
        found[3]["email"] = "bad"
        totals = import_users(self.csv(*found), Options(batch_size=2))
        self.assertEqual((counts(totals), totals.last_line), ((6, 0, 0, 1), 8))
        self.assertEqual((User.objects.count(), number_of_profiles()), (6, 6))

    def test_a_batch_of_rejected_lines_only(self):
        totals = import_users(
            self.csv({"email": "bad"}, {"email": "a@example.com"}), Options(batch_size=1)
        )
        self.assertEqual(counts(totals), (1, 0, 0, 1))

    def test_a_double_in_another_batch_is_a_conflict(self):
        found = [{"email": "a@example.com"}] * 2
        self.assertEqual(
            counts(import_users(self.csv(*found), Options(batch_size=1))), (1, 0, 1, 0)
        )
        self.assertEqual(number_of_profiles(), 1)


def good(strategy: "st.SearchStrategy[str]") -> "st.SearchStrategy[tuple[str, bool]]":
    return strategy.map(lambda text: (text, True))


def bad(*texts: str) -> "st.SearchStrategy[tuple[str, bool]]":
    return st.sampled_from(texts).map(lambda text: (text, False))


ANY = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=150)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(-1e15, 1e15) | ANY,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY, inner, max_size=3),
    max_leaves=5,
)
LINES = st.fixed_dictionaries(
    {
        "email": good(st.integers(0, 9).map(lambda n: f"User{n}@Example.com"))
        | bad("", "x", "a b@c.de"),
        "name": good(ANY) | bad("x" * 151, "\0"),
        "country": good(st.sampled_from(["CH", "de", ""])) | bad("x", "USA", "ß"),
        "plan": good(st.sampled_from(["free", "team", ""])) | bad("gold"),
        "bio": good(ANY),
        "settings": good(st.dictionaries(ANY, JSON, max_size=3).map(json.dumps) | st.just(""))
        | bad("[]", "{", '{"a": NaN}', r'{"\u0000": 1}', r'{"\ud800": 1}'),
        "is_active": good(st.sampled_from(["true", "false", ""])) | bad("?"),
        "date_joined": good(st.datetimes().map(datetime.isoformat) | st.just(""))
        | bad("yesterday"),
    }
)


class PropertyTests(Folder, hypothesis.extra.django.TestCase):
    databases = "__all__"

    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(LINES, min_size=1, max_size=5))
    def test_every_line_is_stored_as_given_or_rejected(
        self, lines: list[dict[str, tuple[str, bool]]]
    ):
        empty()
        given_people = [{name: text for name, (text, _) in line.items()} for line in lines]
        import_users(self.csv(*given_people))
        expected, stored = [], set()
        for line, person, number in zip(
            lines, given_people, first_lines(given_people), strict=True
        ):
            if not all(valid for _, valid in line.values()) or person["email"] in stored:
                expected.append(number)
                continue
            stored.add(person["email"])
            self.assert_stored(person)
        path = self.path / "users.csv.rejected"
        rejected = [line for line, _ in self.rejected()] if path.exists() else []
        self.assertEqual(rejected, expected)
        self.assertEqual((User.objects.count(), number_of_profiles()), (len(stored),) * 2)

    def assert_stored(self, person: Person) -> None:
        email = person["email"].lower()
        user, profile = User.objects.get(email=email), profile_of(email)
        self.assertEqual((user.name, profile.bio), (person["name"], person["bio"]))
        self.assertEqual(user.is_active, person["is_active"] != "false")
        self.assertEqual(profile.country, person["country"].upper())
        self.assertEqual(profile.plan, person["plan"] or "free")
        self.assertEqual(profile.settings, json.loads(person["settings"] or "{}"))
        if person["date_joined"]:
            joined = datetime.fromisoformat(person["date_joined"]).replace(tzinfo=UTC)
            self.assertEqual([user.date_joined, profile.created_at], [joined] * 2)


def first_lines(found: Sequence[Person]) -> list[int]:
    """The number of the line on which each person's record begins."""
    numbers, line = [], 2
    for person in found:
        numbers.append(line)
        file = io.StringIO(newline="")
        csv.writer(file).writerow(person.values())
        line += len(re.findall(r"\r\n|\r|\n", file.getvalue()))
    return numbers


class ConflictTests(Folder, TestCase):
    databases = "__all__"

    def setUp(self) -> None:
        super().setUp()
        self.ada, self.bob = people(2, name="before", bio="before", country="CH")
        import_users(self.csv(self.ada, self.bob))

    def run_import(self, on_conflict: Any, *found: Person) -> tuple[int, int, int, int]:
        return counts(import_users(self.csv(*found), Options(on_conflict=on_conflict)))

    def test_skip_leaves_what_is_stored(self):
        new = people(3)[2]
        other = {"id": str(uuid.uuid4()), "email": self.ada["email"]}
        same_id = {"id": self.bob["id"], "email": "new@example.com"}
        found = [person | {"name": "after", "bio": "after"} for person in (other, same_id, new)]
        self.assertEqual(self.run_import("skip", *found), (1, 0, 2, 0))
        self.assertEqual(number_of_profiles(), 3)
        for person in (self.ada, self.bob):
            self.assertEqual(User.objects.get(pk=person["id"]).name, "before")
            self.assertEqual(profile_of(person["email"]).bio, "before")

    def test_update_changes_only_the_columns_of_the_file(self):
        found = [{"email": self.ada["email"].upper(), "bio": "after"}]
        self.assertEqual(self.run_import("update", *found), (0, 1, 0, 0))
        user, profile = User.objects.get(pk=self.ada["id"]), profile_of(self.ada["email"])
        self.assertEqual((user.name, profile.bio, profile.country), ("before", "after", "CH"))
        self.assertLess(user.date_joined, user.updated_at)
        self.assertLess(profile.created_at, profile.updated_at)

    def test_update_leaves_what_a_cell_does_not_give(self):
        before = User.objects.get(pk=self.ada["id"])
        found = [{"email": self.ada["email"], "date_joined": "", "is_active": "", "name": ""}]
        self.run_import("update", *found)
        user = User.objects.get(pk=self.ada["id"])
        self.assertEqual((user.date_joined, user.is_active), (before.date_joined, True))
        self.assertEqual(user.name, "")  # an empty text is a text

    def test_update_by_id_changes_the_email(self):
        found = [{"id": self.ada["id"], "email": "new@example.com"}]
        self.assertEqual(self.run_import("update", *found), (0, 1, 0, 0))
        self.assertEqual(str(User.objects.get(email="new@example.com").pk), self.ada["id"])

    def test_update_by_email_keeps_the_id(self):
        found = [{"id": str(uuid.uuid4()), "email": self.ada["email"], "bio": "after"}]
        self.assertEqual(self.run_import("update", *found), (0, 1, 0, 0))
        self.assertEqual(str(profile_of(self.ada["email"]).pk), self.ada["id"])
        self.assertEqual(profile_of(self.ada["email"]).bio, "after")

    def test_update_refuses_a_line_between_two_accounts(self):
        found = [{"id": self.ada["id"], "email": self.bob["email"]}, *people(3)[2:]]
        self.assertEqual(self.run_import("update", *found), (1, 0, 0, 1))
        ((line, reason),) = self.rejected()
        self.assertEqual(line, 2)
        self.assertIn("id: is that of one stored account, and the email that of another", reason)

    def test_update_refuses_a_second_line_about_an_account(self):
        found = [
            {"id": self.ada["id"], "email": "new@example.com"},
            {"id": str(uuid.uuid4()), "email": self.ada["email"]},
        ]
        self.assertEqual(self.run_import("update", *found), (0, 1, 0, 1))
        self.assertEqual(self.rejected(), [(3, "is about the same stored account as line 2")])
        self.assertTrue(User.objects.filter(email="new@example.com").exists())

    def test_update_heals_an_account_without_profile(self):
        shard = get_shard_for_user_id(self.ada["id"])
        Profile.objects.using(shard).filter(pk=self.ada["id"]).delete()
        self.run_import("update", self.ada | {"bio": "after"})
        self.assertEqual(profile_of(self.ada["email"]).bio, "after")

    def test_error_stops_at_the_first_conflict_and_keeps_earlier_batches(self):
        first, second, third = people(5)[2:]
        path = self.csv(first, second, third, self.bob, self.ada)
        totals = Totals()
        with self.assertRaisesRegex(ImportFailed, f"Line 5: .*{self.bob['email']}"):
            import_users(path, Options(on_conflict="error", batch_size=2), totals=totals)
        self.assertEqual((counts(totals), totals.last_line), ((2, 0, 0, 0), 3))
        self.assertEqual((User.objects.count(), number_of_profiles()), (4, 4))


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


class CommandTests(Folder, TestCase):
    databases = "__all__"

    def call(self, *arguments: str, stdin: str = "") -> tuple[str, str]:
        out, err = io.StringIO(), io.StringIO()
        standard_input = io.TextIOWrapper(io.BytesIO(stdin.encode()))
        with mock.patch.object(sys, "stdin", standard_input):
            call_command("import_users", *arguments, stdout=out, stderr=err, no_color=True)
        return out.getvalue(), err.getvalue()

    def test_says_what_it_did(self):
        out, err = self.call(self.csv(*people(2)))
        self.assertRegex(
            out, r"users\.csv: 2 created, 0 updated, 0 skipped, 0 rejected in \d+\.\d s \("
        )
        self.assertEqual(err, "")

    def test_rejected_lines_go_to_a_file_and_the_next_clean_run_removes_it(self):
        file = self.csv({"email": "a@example.com"}, {"email": "bad"})
        _, err = self.call(file)
        self.assertIn("line 3: email: is no email address", err)
        self.assertIn(f"1 line was rejected. See {file}.rejected.", err)
        content = (self.path / "users.csv.rejected").read_text()
        self.assertEqual(content.splitlines()[1:], ["3,email: is no email address,bad"])
        self.assertEqual(len(list(self.path.iterdir())), 2)
        self.call(self.csv({"email": "a@example.com"}))
        self.assertFalse((self.path / "users.csv.rejected").exists())

    def test_rejected_lines_keep_bytes_that_are_no_utf8(self):
        file = self.path / "users.csv"
        file.write_bytes(b"email,bio\na@example.com,caf\xe9\n")
        self.call(str(file), "--rejected", str(self.path / "bad.csv"))
        self.assertIn(b"caf\xe9", (self.path / "bad.csv").read_bytes())

    def test_strict(self):
        file = self.csv({"email": "a@example.com"}, {"email": "bad"})
        with self.assertRaisesMessage(CommandError, "1 line was rejected"):
            self.call(file, "--strict")
        self.assertEqual(User.objects.count(), 1)

    def test_dry_run_writes_nothing(self):
        file = self.csv({"email": "a@example.com"}, {"email": "bad"})
        out, err = self.call(file, "--dry-run")
        self.assertIn("1 created, 0 updated, 0 skipped, 1 rejected", out)
        self.assertIn("line 3", err)
        self.assertEqual((User.objects.count(), number_of_profiles()), (0, 0))
        self.assertEqual([path.name for path in self.path.iterdir()], ["users.csv"])

    def test_standard_input(self):
        rejected = str(self.path / "bad.csv")
        out, _ = self.call("-", "--rejected", rejected, stdin="email\na@example.com\nbad\n")
        self.assertIn("Standard input: 1 created", out)
        self.assertEqual(self.rejected("bad.csv"), [(3, "email: is no email address")])
        self.call("-", "--format=ndjson", stdin='{"email": "b@example.com"}\n')
        self.assertEqual(User.objects.count(), 2)

    def test_standard_input_has_its_rejected_lines_in_the_working_directory(self):
        with contextlib.chdir(self.path):
            self.call("-", stdin="email\nbad\n")
        self.assertEqual(self.rejected("stdin.rejected"), [(2, "email: is no email address")])

    def test_files_that_cannot_be_read(self):
        empty_file = self.path / "empty.csv"
        empty_file.touch()
        for name, message in (
            (str(self.path / "none.csv"), "No such file"),
            (str(self.path), "Is a directory"),
            (str(empty_file), "It is empty"),
        ):
            with self.subTest(name), self.assertRaisesRegex(CommandError, message):
                self.call(name)

    def test_a_wrong_column_stops_before_anything_is_written(self):
        file = self.csv({"email": "a@example.com", "nmae": "x"})
        with self.assertRaisesMessage(CommandError, "Unknown: nmae. The columns are id, email"):
            self.call(file)
        self.assertEqual(User.objects.count(), 0)

    def test_says_how_far_it_came(self):
        file = self.csv(
            *({"id": id_on("shard_1"), "email": f"{n}@example.com"} for n in range(3)),
            {"id": id_on("shard_2"), "email": "last@example.com"},
        )
        with server_down("shard_2"), self.assertRaises(CommandError) as caught:
            self.call(file, "--batch-size=3")
        message = str(caught.exception)
        self.assertIn("Database shard_2 cannot be reached", message)
        self.assertIn("All lines up to 4 are done (3 created", message)
        self.assertIn("Run the same command again", message)

    def test_ctrl_c(self):
        def write_then_interrupt(*arguments: Any) -> None:
            original(*arguments)
            raise KeyboardInterrupt

        original = writing._write_profiles
        with (
            mock.patch.object(writing, "_write_profiles", write_then_interrupt),
            self.assertRaises(SystemExit) as caught,
        ):
            self.call(self.csv(*people(2)))
        self.assertEqual((caught.exception.code, User.objects.count()), (130, 0))

    def test_options_that_make_no_sense(self):
        file = self.csv(*people(1))
        for arguments in (["--batch-size=0"], ["--on-conflict=merge"]):
            with self.subTest(arguments), self.assertRaises(CommandError):
                self.call(file, *arguments)
        with self.assertRaisesMessage(CommandError, "is the file to import"):
            self.call(file, "--rejected", file)
