"""What the first start of a clone finds."""

import csv
import io
import re
import subprocess
import sys
from datetime import UTC, datetime
from unittest import mock

from django.conf import settings
from django.core.management import CommandError, call_command
from django.db import OperationalError
from django.test import SimpleTestCase, TestCase

from sharding import conf
from users.models import Activity, Profile, User
from users.sample import loading


def load() -> str:
    out = io.StringIO()
    call_command("load_sample", stdout=out, no_color=True)
    return out.getvalue()


def numbers() -> tuple[int, int]:
    profiles = sum(Profile.objects.using(shard).count() for shard in conf.shards())
    return User.objects.count(), profiles


class LoadingTests(TestCase):
    databases = "__all__"

    def test_loads_users_activities_and_an_administrator_once(self):
        output = load()
        self.assertEqual(numbers(), (5001, 5001))
        made = sum(Activity.objects.using(shard).count() for shard in conf.shards())
        self.assertTrue(18_000 < made < 22_000, made)
        admin = User.objects.get(is_superuser=True)
        self.assertEqual((admin.email, admin.is_staff), ("admin@example.com", True))
        password = re.search(r"password +(\S+)", output)
        self.assertTrue(password and admin.check_password(password[1]))
        self.assertIn("5,000 created", output)
        self.assertEqual(load(), "There is an administrator already: no sample is loaded.\n")
        self.assertEqual(numbers(), (5001, 5001))

    def test_broken_off_it_goes_on(self):
        with (
            mock.patch.object(loading, "seed_activities", side_effect=OperationalError("lost")),
            self.assertRaisesRegex(CommandError, "lost Run load_sample again"),
        ):
            load()
        self.assertEqual(numbers(), (5000, 5000))
        self.assertIn("5,000 skipped", load())
        self.assertEqual(numbers(), (5001, 5001))

    def test_with_an_administrator_nothing_changes(self):
        User.objects.create_superuser("root@example.com", "secret")
        self.assertIn("no sample is loaded", load())
        self.assertEqual(numbers(), (1, 1))

    def test_never_gives_rights_to_somebody_elses_account(self):
        User.objects.create_user("admin@example.com", "secret")
        with self.assertRaisesRegex(CommandError, "createsuperuser"):
            load()
        self.assertEqual(numbers(), (1, 1))


class SampleTests(SimpleTestCase):
    people: list[dict[str, str]]

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        with loading.FILE.open(newline="", encoding="utf-8") as file:
            cls.people = list(csv.DictReader(file))

    def share(self, column: str, value: str) -> float:
        return sum(person[column] == value for person in self.people) / len(self.people)

    def test_the_generator_makes_this_file_again(self):
        # With another Faker it may not: then put the new file into place.
        made = subprocess.run(
            [sys.executable, "-m", "users.sample.generate"],
            env={"PYTHONHASHSEED": "1", "PATH": ""},
            cwd=settings.BASE_DIR,
            capture_output=True,
            check=True,
        ).stdout
        self.assertTrue(made == loading.FILE.read_bytes(), "users.csv is another one")

    def test_emails_lead_nowhere_and_are_unique(self):
        emails = [person["email"] for person in self.people]
        self.assertEqual(len(set(emails)), len(emails))
        for email in emails:
            self.assertRegex(email, r"\A[a-z.+0-9]+@example\.(com|org|net)\Z")

    def test_names_are_of_many_scripts(self):
        names = "".join(person["name"] for person in self.people)
        for character in "éüłñçяλ田王김א":
            self.assertIn(character, names)

    def test_dates_are_in_order(self):
        for person in self.people:
            joined = datetime.fromisoformat(person["date_joined"])
            self.assertLess(datetime(2024, 10, 31, tzinfo=UTC), joined)
            self.assertLess(joined, datetime(2026, 11, 1, tzinfo=UTC))
            if person["last_login"]:
                self.assertLessEqual(joined, datetime.fromisoformat(person["last_login"]))

    def test_shares(self):
        self.assertTrue(0.6 < self.share("plan", "free") < 0.8)
        self.assertTrue(0.9 < self.share("is_active", "true") < 0.97)
        self.assertTrue(0.05 < self.share("last_login", "") < 0.2)
        for column in ("display_name", "bio", "country"):
            self.assertTrue(0.02 < self.share(column, "") < 0.6, column)

    def test_more_join_later_and_on_weekdays(self):
        joined = [datetime.fromisoformat(person["date_joined"]) for person in self.people]
        late = sum(moment >= datetime(2025, 11, 1, tzinfo=UTC) for moment in joined)
        self.assertGreater(late, 0.55 * len(joined))
        weekend = sum(moment.weekday() >= 5 for moment in joined)
        self.assertLess(weekend, 0.22 * len(joined))
