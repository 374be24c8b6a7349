"""Importing users: what is stored where, and what becomes of conflicts."""

import csv
import io
import json
import re
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import hypothesis.extra.django
from django.test import TestCase
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sharding import get_shard_for_user_id
from tests.sharding.ids import ids_on_each_shard
from tests.users.importing import (
    Folder,
    Person,
    counts,
    empty,
    number_of_profiles,
    people,
    profile_of,
)
from users.importing import ImportFailed, Options, Totals, import_users
from users.models import Profile, User


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
