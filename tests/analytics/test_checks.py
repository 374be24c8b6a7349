"""The system checks of what is synced."""

from dataclasses import replace
from unittest import mock

from django.test import SimpleTestCase

from analytics import checks
from analytics.sync.described import PROFILES, USERS, Synced


class SyncedTests(SimpleTestCase):
    def found(self, *synced: Synced) -> list[str | None]:
        with mock.patch.object(checks, "SYNCED", synced):
            return [message.id for message in checks.check_synced()]

    def test_those_that_are_synced_are_right(self) -> None:
        self.assertEqual(checks.check_synced(), [])

    def test_a_copy_of_another_type(self) -> None:
        wrong = replace(USERS, columns={"email": "email", "name": "date_joined"})
        self.assertEqual(self.found(wrong, PROFILES), ["analytics.E001"])

    def test_a_column_whose_changes_are_not_logged(self) -> None:
        wrong = replace(PROFILES, columns={"country": "country", "display_name": "plan"})
        self.assertEqual(self.found(USERS, wrong), ["analytics.E002"])

    def test_the_log_of_another_one(self) -> None:
        wrong = replace(USERS, log=PROFILES.log, columns={"name": "name"})
        expected = ["analytics.E002", "analytics.E003", "analytics.E003"]
        self.assertEqual(self.found(wrong, PROFILES), expected)

    def test_a_log_that_nobody_reads(self) -> None:
        self.assertEqual(self.found(USERS), ["analytics.E003"])

    def test_one_table_copied_twice(self) -> None:
        self.assertEqual(self.found(USERS, PROFILES, USERS), ["analytics.E003"])
