"""The comparison of both sides before the point of no return: what it finds, and what follows."""

from typing import Any
from unittest import mock

import psycopg

from sharding.errors import MoveFailed
from sharding.models import Move
from sharding.moves import copying, run, verifying
from sharding.moves.servers import value
from tests.sharding.moves.support import SLOTS, MovesTestCase, quiet, user_id
from tests.support import wait_until
from users.models import Activity, Profile

KEY = user_id(SLOTS[0])
EXTRA = (
    "INSERT INTO users_profile (user_id, plan, country, display_name, bio, settings, created_at,"
    f" updated_at) VALUES ('{user_id(SLOTS[0], 77)}', '', '', '', '', '{{}}', now(), now())"
)


class VerifyingTests(MovesTestCase):
    def copied(self) -> Move:
        move = self.begin()
        while move.state != "catching up":
            run._STEPS[Move.State(move.state)](move, quiet)
        return move

    def tamper(self, statement: str) -> None:
        """Change a copy as by a hand that the guard does not hold back."""
        with psycopg.connect(self.servers.url("shard_2"), autocommit=True) as client:
            client.execute("SET session_replication_role = replica")
            client.execute(statement)

    def assertGivenUp(self, move: Move) -> None:
        run.abort(run.resume(), quiet)
        self.assertWhole()
        self.assertNothingLeft(owner="shard_1")

    def test_a_lasting_difference_is_named_and_nothing_is_switched(self) -> None:
        other = Activity.objects.filter(profile=KEY).first()
        assert other
        for statement, table, named in (
            (f"UPDATE users_profile SET bio = 'other' WHERE user_id = '{KEY}'", "profile", KEY),
            (f"DELETE FROM users_activity WHERE id = '{other.pk}'", "activity", other.pk),
            (EXTRA, "profile", user_id(SLOTS[0], 77)),
        ):
            with self.subTest(statement), mock.patch.object(verifying, "_LOOKS_AT_ROWS", 2):
                move = self.copied()
                self.tamper(statement)
                text = rf"1 rows of users_{table} in the slots \[{SLOTS[0]}\] differ.*{named}"
                with self.assertRaisesRegex(MoveFailed, text):
                    run.run(move, quiet)
                move.refresh_from_db()
                self.assertEqual(move.state, "catching up")
                self.assertRegex(move.problem, text)
                self.assertGivenUp(move)

    def test_slots_that_are_never_quiet_are_compared_row_by_row(self) -> None:
        with mock.patch.object(verifying, "_LOOKS", 0):
            self.assertEqual(self.move().rows, 24)
        self.assertWhole()
        self.assertNothingLeft(owner="shard_2")

    def test_a_difference_that_passes_is_looked_at_again(self) -> None:
        original, looks = verifying._hashes, []

        def hashes(move: Move, table: Any, *args: Any, **options: Any) -> Any:
            here, there = original(move, table, *args, **options)
            looks.append(options["by"] == table.slot)
            if len(looks) == 1:  # as by a change that was not applied yet
                there.pop(SLOTS[1])
            return here, there

        with mock.patch.object(verifying, "_hashes", hashes):
            self.assertEqual(self.move().rows, 24)
        self.assertEqual(looks, [True] * 3)  # slot by slot: two tables, and one of them again

    def test_changes_that_the_target_cannot_apply(self) -> None:
        move = self.copied()
        self.tamper("ALTER TABLE users_profile ADD CONSTRAINT never CHECK (bio <> 'never')")
        self.addCleanup(self.tamper, "ALTER TABLE users_profile DROP CONSTRAINT never")
        Profile.objects.filter(user_id=KEY).update(bio="never")
        with (
            mock.patch.object(copying, "_ERRORS", 1),
            mock.patch.object(copying, "_CATCH_UP_TIMEOUT", 30.0),
            self.assertRaisesRegex(MoveFailed, "shard_2 fails again and again to apply"),
        ):
            run.run(move, quiet)
        self.assertGivenUp(move)

    def test_an_update_that_found_no_row(self) -> None:
        move = self.copied()
        self.tamper(f"DELETE FROM users_profile WHERE user_id = '{KEY}'")
        Profile.objects.filter(user_id=KEY).update(bio="changed")
        conflicts = "SELECT sum(confl_update_missing) FROM pg_stat_subscription_stats"
        wait_until(lambda: value("shard_2", conflicts), "the conflict to be counted")
        with self.assertRaisesRegex(MoveFailed, "confl_update_missing.*Abort the move"):
            run.run(move, quiet)
        self.assertGivenUp(move)
