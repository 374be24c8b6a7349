"""`manage.py shards`: what it prints, what it refuses, and what it finds and repairs."""

import re
from datetime import timedelta
from io import StringIO
from unittest import mock

import psycopg
from django.core.management import CommandError, call_command
from django.utils import timezone

from sharding import ownership, slot_cache
from sharding.models import Move
from sharding.moves import checking, copying, planning, run, status
from sharding.moves.planning import Planned
from sharding.moves.servers import value
from tests.outage import pointed_to
from tests.sharding.moves.support import OWN, SLOTS, MovesTestCase, owners_of, quiet, user_id
from users.models import Profile, User

RANGE = f"{SLOTS[0]}-{SLOTS[-1]}"
STRAY = (
    "SET session_replication_role = replica; INSERT INTO users_profile (user_id, plan, country,"
    " display_name, bio, settings, created_at, updated_at)"
    " VALUES (%s, '', '', '', '', '{}', now(), now())"
)


class CommandTests(MovesTestCase):
    def shards(self, *arguments: str) -> str:
        out = StringIO()
        call_command("shards", *arguments, stdout=out, stderr=out)
        return out.getvalue()

    def execute(self, alias: str, statement: str, *parameters: object) -> None:
        with psycopg.connect(self.servers.url(alias), autocommit=True) as client:
            for part in statement.split("; "):
                client.execute(part, parameters if "%s" in part else None)

    def test_a_move_and_the_status_before_and_after(self) -> None:
        self.assertIn("shard_1 owns 0-333", self.shards("status"))
        # One of them is there already.
        printed = self.shards("move", "--slots", f"{RANGE},400", "--to", "shard_2")
        self.assertIn(f"shard_1 -> shard_2: 4 slots ({RANGE})", printed)
        for state in ("planned", "copying", "verified", "fenced", "switched", "cleaned, 24 rows"):
            self.assertIn(state, printed)
        self.assertIn(f"shard_2 owns {RANGE},334-666", self.shards("status"))
        self.assertNothingLeft(owner="shard_2")

    def test_a_dry_run_changes_nothing(self) -> None:
        version = slot_cache.renew().version
        printed = self.shards("move", "--slots", RANGE, "--to", "shard_2", "--dry-run")
        self.assertIn("Nothing stands in the way", printed)
        self.assertEqual(slot_cache.renew().version, version)
        self.assertNothingLeft(owner="shard_1")

    def test_a_rebalance_makes_its_moves_one_after_the_other(self) -> None:
        printed = self.shards("rebalance", "--empty", "shard_2", "--dry-run")
        self.assertRegex(printed, r"shard_2 -> shard_[13]: \d+ slots .*, about \d+ rows")
        self.assertIn("Nothing was changed", printed)
        self.assertNothingLeft(owner="shard_1")
        moves = [
            Planned("shard_1", "shard_2", (10, 11), 4),
            Planned("shard_2", "shard_1", (500,), 2),
        ]
        with mock.patch.object(planning, "rebalance", return_value=moves):
            printed = self.shards("rebalance")
        self.assertEqual(printed.count("cleaned, "), 2)
        self.assertWhole()
        self.assertNothingLeft(owner="shard_2", slots=(10, 11))
        self.assertNothingLeft(owner="shard_1", slots=(500,))

    def test_requests_that_make_no_sense(self) -> None:
        for arguments, text in (
            (["move"], "Say which slots and where to"),
            (["move", "--slots", "1-5"], "Say which slots and where to"),
            (["move", "--slots", "9-5", "--to", "shard_2"], "no range of slots"),
            (["move", "--slots", "1000", "--to", "shard_2"], "no range of slots"),
            (["move", "--slots", "all", "--to", "shard_2"], "is no slot"),
            (["move", "--slots", "5", "--to", "shard_9"], "shard_9 is no shard"),
            (["move", "--slots", "5", "--to", "shard_1"], "owns these slots already"),
            (["move", "--resume", "--abort"], "not both"),
            (["move", "--abort", "--slots", "5"], "about the move that stopped, whole"),
            (["move", "--resume"], "none to go on with"),
            (["rebalance", "--add", "shard_9"], "shard_9 is no shard"),
            (["nothing"], "invalid choice"),
        ):
            with self.subTest(arguments), self.assertRaisesRegex(CommandError, text):
                self.shards(*arguments)

    def test_stopped_and_gone_on_with(self) -> None:
        def stop(*args: object) -> None:
            raise KeyboardInterrupt

        with (
            mock.patch.object(copying, "catch_up", stop),
            self.assertRaisesRegex(CommandError, "Stopped: .* in the state catching up. Go on"),
        ):
            self.shards("move", "--slots", RANGE, "--to", "shard_2")
        self.assertIn("catching up", self.shards("status"))
        with self.assertRaisesRegex(CommandError, "is not finished"):
            self.shards("move", "--slots", "20", "--to", "shard_2")
        self.assertIn("Would give up", self.shards("move", "--abort", "--dry-run"))
        self.assertIn("cleaned", self.shards("move", "--resume"))
        self.assertNothingLeft(owner="shard_2")

    def test_given_up(self) -> None:
        move = self.begin()
        run._STEPS[Move.State.PLANNED](move, quiet)
        self.assertIn("aborted", self.shards("move", "--abort"))
        self.assertNothingLeft(owner="shard_1")

    def test_a_second_mover_is_kept_away(self) -> None:
        with psycopg.connect(self.servers.url("default")) as client:
            client.execute("SELECT pg_advisory_lock(%s)", [run._LOCK])
            with self.assertRaisesRegex(CommandError, "Another process is moving"):
                self.shards("move", "--slots", RANGE, "--to", "shard_2")
        self.assertNothingLeft(owner="shard_1")

    def test_given_up_when_the_target_was_lost(self) -> None:
        move = self.begin()
        run._STEPS[Move.State.PLANNED](move, quiet)
        self.execute("shard_2", "CREATE DATABASE empty")
        self.addCleanup(self.execute, "shard_2", "DROP DATABASE empty WITH (FORCE)")
        with pointed_to({"shard_2": {"NAME": "empty"}}):
            self.assertIn("aborted", self.shards("move", "--abort"))
        with ownership.changing("shard_2") as cursor:  # which was not lost in truth
            ownership.release(cursor, SLOTS)
        self.assertNothingLeft(owner="shard_1")

    def test_a_shard_that_is_down_is_reported(self) -> None:
        self.servers.kill("shard_2")
        self.assertRegex(self.shards("status"), r"shard_2 +down")

    def test_shards_are_not_down_because_the_primary_is(self) -> None:
        slot_cache.renew()
        self.servers.kill("default")
        found = status.status()
        self.assertEqual({shard.health for shard in found}, {"ok"})
        for shard in found:
            self.assertIn("Database primary cannot be reached", shard.problems[0])

    def test_what_a_dead_move_left_is_shown_with_what_removes_it(self) -> None:
        system = value("shard_1", "SELECT system_identifier FROM pg_control_system()")
        for name, statement in (
            ("publication", "CREATE PUBLICATION sharding_move_9_x"),
            (
                "subscription",
                "CREATE SUBSCRIPTION sharding_move_9_x CONNECTION 'dbname=x' PUBLICATION p WITH"
                " (connect = false)",
            ),
            (
                "replication slot",
                "SELECT pg_create_logical_replication_slot('sharding_move_9_x', 'pgoutput')",
            ),
            (
                "replication slot",
                f"SELECT pg_create_logical_replication_slot('pg_1_sync_2_{system}', 'pgoutput')",
            ),
        ):
            with self.subTest(statement):
                self.execute("shard_1", statement)
                shown = re.search(
                    rf"{name} \w+ of a move that is no more\. on shard_1: (.+);",
                    self.shards("status"),
                )
                assert shown
                self.execute("shard_1", shown[1])
                self.assertNotIn("no more", self.shards("status"))

    def test_rows_that_nobody_owns_are_shown(self) -> None:
        self.execute("shard_1", STRAY, user_id(500))
        self.assertEqual(planning.rows_per_slot(slot_cache.renew())[500], 6)  # of its owner
        text = "shard_1 has 1 rows of slots that it does not own in users_profile"
        self.assertIn(text, self.shards("status"))
        self.assertIn("Repaired", self.shards("check", "--repair"))
        self.assertNotIn("does not own", self.shards("status"))

    def test_the_log_that_a_move_keeps_is_warned_of(self) -> None:
        move = self.begin()
        run._STEPS[Move.State.PLANNED](move, quiet)
        self.assertNotIn("of WAL", self.shards("status"))
        with mock.patch.object(status, "_MUCH", 0):
            printed = self.shards("status")
        self.assertRegex(
            printed, rf"WAL for sharding_move_{move.pk}_\w+: go on with the move, or abort"
        )

    def test_a_check_leaves_alone_what_moves(self) -> None:
        orphan, *others = self.keys  # which moves
        Profile.objects.filter(user_id=orphan).update(updated_at=timezone.now() - timedelta(days=1))
        User.objects.bulk_create([User(id=key, email=f"{key}@example.com") for key in others])
        self.addCleanup(User.objects.all().delete)
        move = self.begin()
        for _ in range(7):
            run._STEPS[Move.State(move.state)](move, quiet)
            with self.subTest(move.state):
                self.assertIn("Every row stands", self.shards("check", "--repair"))
                self.assertWhole()
        self.assertEqual(move.state, "owned")

    def test_check_finds_and_repairs_copies_and_keeps_what_stands_alone(self) -> None:
        User.objects.bulk_create([User(id=key, email=f"{key}@example.com") for key in self.keys])
        self.addCleanup(User.objects.all().delete)
        self.assertIn("Every row stands", self.shards("check"))
        copy, alone = user_id(500), user_id(500, 77)
        for key in (copy, alone):
            self.execute("shard_1", STRAY, key)
        with self.assertRaisesRegex(CommandError, "2 findings"):
            self.shards("check")
        with self.assertRaisesRegex(CommandError, "1 findings"):
            self.shards("check", "--repair")
        rows = Profile.objects.using("shard_1").filter(pk__in=[copy, alone])
        self.assertEqual([row.pk for row in rows], [alone])
        self.assertTrue(Profile.objects.filter(user_id=copy).exists())
        delete = "SET session_replication_role = replica; DELETE FROM users_profile"
        self.execute("shard_1", f"{delete} WHERE user_id = %s", alone)

    def test_accounts_and_profiles_that_lack_each_other(self) -> None:
        old = timezone.now() - timedelta(hours=2)
        kept, lone = self.keys[0], user_id(600, 1)
        User.objects.bulk_create([User(id=k, email=f"{k}@example.com") for k in (kept, lone)])
        User.objects.update(updated_at=old)
        self.addCleanup(User.objects.all().delete)
        Profile.objects.across_shards().update(updated_at=old)
        young = user_id(601)
        Profile.objects.create(user_id=young)
        with self.assertRaisesRegex(CommandError, "2 findings"):
            self.shards("check")
        printed = self.shards("check", "--repair")
        self.assertIn(f"{len(self.keys) - 1} profiles have no account", printed)
        self.assertIn("1 accounts have no profile", printed)
        self.assertEqual(self.stored(), sorted([kept, lone, young]))

    def test_a_slot_that_was_given_up_is_not_taken_back(self) -> None:
        """The map says otherwise, as that of a primary restored from a backup: nobody can tell."""
        with ownership.changing("shard_1") as cursor:
            ownership.set_state(cursor, [SLOTS[0]], "moved", move=99)
        (finding,) = checking._stray_states("shard_1", repair=True)
        self.assertFalse(finding.repaired)
        self.assertEqual(owners_of(SLOTS[0]), [])
        with ownership.changing("shard_1") as cursor:
            ownership.claim(cursor, [SLOTS[0]])

    def test_states_of_a_move_that_is_no_more(self) -> None:
        User.objects.bulk_create([User(id=key, email=f"{key}@example.com") for key in self.keys])
        self.addCleanup(User.objects.all().delete)
        move = self.begin()
        for _ in range(3):
            run._STEPS[Move.State(move.state)](move, quiet)
        run.abort(move, quiet)
        for alias, state in zip(OWN[1:], ("owned", "importing"), strict=True):
            self.execute(
                alias,
                "INSERT INTO sharding_slotowner (slot, state, move) VALUES (10, %s, 99)"
                " ON CONFLICT (slot) DO UPDATE SET state = excluded.state, move = excluded.move",
                state,
            )
        self.execute("shard_1", "DROP TRIGGER sharding_guard_delete ON users_activity")
        with self.assertRaisesRegex(CommandError, "findings"):
            self.shards("check")
        printed = self.shards("check", "--repair")
        self.assertIn("shard_1 did not say what its table of slots says. Repaired.", printed)
        self.assertIn("shard_1 had not all triggers of the guard. Repaired.", printed)
        self.assertNothingLeft(owner="shard_1")
