"""The command import_users: what it says and where it leaves rejected lines."""

import contextlib
import io
import sys
from typing import Any
from unittest import mock

from django.core.management import CommandError, call_command
from django.test import TestCase

from tests.sharding.ids import id_on
from tests.support import server_down
from tests.users.importing import Folder, number_of_profiles, people
from users.importing import writing
from users.models import User


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
