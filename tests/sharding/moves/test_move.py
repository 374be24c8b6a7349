"""A move from its beginning to its end, given up on its way, and done again from every state."""

from unittest import mock

from django.db import connections
from django.db.models import Sum

from sharding import slot_cache
from sharding.errors import MoveOvertaken, MoveRefused, SlotMoved
from sharding.models import Move, Slot
from sharding.moves import cleaning, copying, handover, prechecks, record, run
from sharding.moves.copying import Progress
from sharding.moves.servers import execute, value
from tests.sharding.moves.soak import rounds
from tests.sharding.moves.support import SLOTS, MovesTestCase, owners_of, quiet, user_id
from users.models import Activity, Profile

BEFORE = ("planned", "copying", "catching up", "verified", "fenced")
AFTER = ("moved", "switched", "owned")


class MoveTests(MovesTestCase):
    def step(self, move: Move, until: str) -> None:
        """Take a move to a state, and stop there as by a crash."""
        while move.state != until:
            run._STEPS[Move.State(move.state)](move, quiet)

    def test_a_whole_move(self) -> None:
        seen: list[str] = []

        def look(progress: Progress) -> None:
            if progress.text in (*BEFORE, *AFTER) and progress.text not in seen:
                seen.append(progress.text)
                self.assertWhole()
                for slot in SLOTS:
                    self.assertLessEqual(len(owners_of(slot)), 1)

        # Rows on several pages, which are cleaned one by one.
        Profile.objects.across_shards().update(bio="x" * 1500)
        with mock.patch.object(cleaning, "_PAGES", 1):
            move = self.move(report=look)
        self.assertEqual(seen, [*BEFORE, *AFTER])
        self.assertEqual((move.state, move.rows), ("cleaned", 24))
        self.assertWhole()
        self.assertNothingLeft(owner="shard_2")
        self.assertEqual(Profile.objects.using("shard_2").filter(pk=user_id(10)).count(), 1)
        self.assertEqual(Profile.objects.using("shard_1").filter(pk=user_id(10)).count(), 0)

    def test_there_and_back(self) -> None:
        self.move()
        run.run(run.begin("shard_2", "shard_1", SLOTS), quiet)
        self.assertWhole()
        self.assertNothingLeft(owner="shard_1")

    def test_gone_on_with_from_every_state(self) -> None:
        move = self.begin()
        for state in (*BEFORE[1:], *AFTER):
            # Once as far as it goes, and then as a process that knows nothing of it.
            self.step(move, state)
            self.assertWhole()
            move = run.resume()
        run.run(move, quiet)
        self.assertWhole()
        self.assertNothingLeft(owner="shard_2")

    def test_given_up_in_every_state_before_the_point_of_no_return(self) -> None:
        for state in BEFORE:
            with self.subTest(state):
                move = self.begin()
                self.step(move, state)
                run.abort(run.resume(), quiet)
                self.assertWhole()
                self.assertNothingLeft(owner="shard_1")

    def test_given_up_while_a_table_is_copied(self) -> None:
        """The copy of a table has a replication slot of its own, which may outlive it."""
        move = self.begin()
        self.step(move, "copying")
        system = value("shard_2", "SELECT system_identifier FROM pg_control_system()")
        slot = f"pg_16400_sync_16401_{system}"
        execute("shard_1", f"SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')")
        run.abort(run.resume(), quiet)
        self.assertWhole()
        self.assertNothingLeft(owner="shard_1")

    def test_not_given_up_after_it(self) -> None:
        move = self.begin()
        self.step(move, "moved")
        with self.assertRaisesMessage(MoveRefused, "the only way is forward"):
            run.abort(run.resume(), quiet)
        run.run(run.resume(), quiet)
        self.assertNothingLeft(owner="shard_2")

    def test_a_mover_that_sleeps_changes_nothing_when_it_wakes(self) -> None:
        for state in rounds((*BEFORE, *AFTER), usually=3):
            with self.subTest(state):
                move = self.begin()
                self.step(move, state)
                sleeping = Move.objects.get(pk=move.pk)
                run.run(move, quiet)
                with self.assertRaises((MoveOvertaken, SlotMoved)):
                    run.run(sleeping, quiet)
                self.assertEqual(Move.objects.get(pk=move.pk).state, "cleaned")
                self.assertWhole()
                self.assertNothingLeft(owner="shard_2")
                run.run(run.begin("shard_2", "shard_1", SLOTS), quiet)

    def test_what_was_copied_is_on_disk_before_the_source_forgets_it(self) -> None:
        """A table's own slot there is dropped at once; a crash of the target must not need it."""
        waits = set()

        def look(progress: Progress) -> None:
            waiting = value("shard_2", "SELECT subsynccommit FROM pg_subscription")
            waits.add((progress.text, waiting))

        self.move(report=look)
        self.assertIn(("copying", "on"), waits)
        self.assertIn(("catching up", "off"), waits)
        self.assertNotIn(("catching up", "on"), waits)

    def test_one_that_wakes_before_the_source_has_forgotten_the_move(self) -> None:
        move = self.begin()
        sleeping: list[Move] = []
        for state in (*BEFORE, *AFTER):
            self.step(move, state)
            # One that catches up waits for the end of the replication slot; "owned" is up to date.
            if state not in ("catching up", "owned"):
                sleeping.append(Move.objects.get(pk=move.pk))
        for mover in sleeping:
            with (
                self.subTest(mover.state),
                mock.patch.object(copying, "_CATCH_UP_TIMEOUT", 5.0),
                self.assertRaises(MoveOvertaken),
            ):
                run.run(mover, quiet)
            self.assertEqual([owners_of(slot) for slot in SLOTS], [["shard_2"]] * len(SLOTS))
        self.assertFalse(handover.let_go(move))
        self.assertEqual(owners_of(SLOTS[0]), ["shard_2"])
        run.run(move, quiet)
        self.assertWhole()
        self.assertNothingLeft(owner="shard_2")

    def test_one_that_wakes_after_the_move_was_given_up(self) -> None:
        move = self.begin()
        sleeping = Move.objects.get(pk=move.pk)
        run.abort(move, quiet)
        with self.assertRaises(MoveOvertaken):
            run.run(sleeping, quiet)
        self.assertNothingLeft(owner="shard_1")

    def test_one_that_sleeps_between_the_fence_and_giving_up(self) -> None:
        move = self.begin()
        self.step(move, "fenced")
        handover.hold(move)
        run.abort(run.resume(), quiet)
        with self.assertRaises(MoveOvertaken):
            handover.give_up(move)
        self.assertNothingLeft(owner="shard_1")

    def test_one_that_sleeps_before_it_lets_the_target_take_writes(self) -> None:
        move = self.begin()
        self.step(move, "switched")
        original = handover.unsubscribe

        def sleep(asleep: Move) -> None:
            with mock.patch.object(handover, "unsubscribe", original):
                run.run(run.resume(), quiet)
                run.run(run.begin("shard_2", "shard_1", SLOTS), quiet)

        with (
            mock.patch.object(handover, "unsubscribe", sleep),
            self.assertRaises(MoveOvertaken),
        ):
            handover.take_over(move)
        self.assertWhole()
        self.assertNothingLeft(owner="shard_1")

    def test_changes_during_the_copy_arrive(self) -> None:
        key = user_id(11)

        def change(progress: Progress) -> None:
            if progress.text == "catching up":
                Profile.objects.filter(user_id=key).update(bio="changed")
                Profile.objects.filter(user_id=user_id(12)).delete()
                Profile.objects.create(user_id=user_id(13, 7))
                Activity.objects.filter(profile=key).update(amount=5)

        self.move(report=change)
        self.assertEqual(Profile.objects.get(user_id=key).bio, "changed")
        self.assertFalse(Profile.objects.filter(user_id=user_id(12)).exists())
        self.assertTrue(Profile.objects.filter(user_id=user_id(13, 7)).exists())
        amounts = Activity.objects.across_shards().filter(amount=5)
        self.assertEqual(amounts.aggregate(Sum("amount"))["amount__sum"], 10)
        self.assertNothingLeft(owner="shard_2")

    def test_a_truncate_would_pass_by_the_copy(self) -> None:
        move = self.begin()
        self.step(move, "copying")
        with self.assertRaises(SlotMoved), connections["shard_1"].cursor() as cursor:
            cursor.execute("TRUNCATE users_profile CASCADE")
        run.abort(move, quiet)
        self.assertWhole()

    def test_a_map_that_somebody_changed_meanwhile(self) -> None:
        move = self.begin()
        self.step(move, "moved")
        changed = Slot.objects.filter(slot=SLOTS[0])
        changed.update(shard="shard_3")
        with self.assertRaisesMessage(MoveOvertaken, "Somebody changed it by hand"):
            run.run(move, quiet)
        changed.update(shard="shard_1")
        run.run(run.resume(), quiet)
        self.assertWhole()
        self.assertNothingLeft(owner="shard_2")

    def test_only_one_at_a_time(self) -> None:
        move = self.begin()
        with self.assertRaisesMessage(MoveRefused, "is not finished"):
            self.begin([20])
        with self.assertRaisesMessage(MoveRefused, "is not finished"):
            record.create("shard_1", "shard_2", [20])
        (problem,) = prechecks.problems("shard_1", "shard_2", [20])  # as of a --dry-run
        self.assertIn("is not finished", problem)
        run.abort(move, quiet)

    def test_the_map_says_what_does_not_count_and_when_slots_change_hands(self) -> None:
        move, version = self.begin(), 0
        for state in (*BEFORE, *AFTER):
            self.step(move, state)
            hidden = "shard_1" if state in ("switched", "owned") else "shard_2"
            soon = state not in ("planned", "copying", "owned")
            for slot_map in (slot_cache.renew(), slot_cache.read()):  # the other: a new process's
                self.assertEqual(slot_map.hidden, {hidden: frozenset(SLOTS)})
                self.assertEqual(slot_map.handing_over, soon, state)
            if state in ("catching up", "switched", "owned"):
                self.assertGreater(slot_map.version, version)
            version = slot_map.version
        run.run(move, quiet)
        self.assertEqual(slot_cache.renew().hidden, {})
