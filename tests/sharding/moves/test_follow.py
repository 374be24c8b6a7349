"""The ORM while slots move: writes follow, fan-outs count once, transactions run again."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from django.db import DatabaseError, connections, transaction
from django.db.models import Count, F

import sharding
from sharding import slot_cache
from sharding.backend.base import DatabaseWrapper
from sharding.errors import SlotMoved, WrongShard
from sharding.models import Move
from sharding.moves import run
from sharding.slots import SlotMap
from tests.sharding.moves.support import SLOTS, MovesTestCase, quiet, user_id
from tests.support import wait_until
from users.models import Activity, Profile

KEY = user_id(SLOTS[0])


class FollowTests(MovesTestCase):
    def step(self, move: Move, until: str) -> None:
        while move.state != until:
            run._STEPS[Move.State(move.state)](move, quiet)

    @contextmanager
    def moving_meanwhile(self, move: Move) -> Iterator[None]:
        """Let another thread take the move from where it is to its end, once somebody waits."""
        waiting = threading.Event()
        original = slot_cache.pause

        def pause() -> None:
            waiting.set()
            original()

        def go_on() -> None:
            try:
                waiting.wait(timeout=20)
                run.run(move, quiet)
            finally:
                connections.close_all()

        thread = threading.Thread(target=go_on)
        thread.start()
        slot_cache.pause = pause
        try:
            yield
        finally:
            slot_cache.pause = original
            waiting.set()
            thread.join(timeout=30)
        self.assertEqual(Move.objects.get(pk=move.pk).state, "cleaned")

    def test_every_write_waits_and_follows(self) -> None:
        profile = Profile.objects.get(user_id=KEY)
        activity = Activity.objects.filter(profile=KEY).first()
        assert activity
        writes: list[tuple[Callable[[], Any], Callable[[], bool]]] = [
            (lambda: Profile(user_id=KEY, bio="saved").save(), lambda: self.bio() == "saved"),
            (lambda: profile.activities.create(kind="a"), lambda: self.has(kind="a")),
            (
                lambda: Profile.objects.filter(user_id=KEY).update(bio="updated"),
                lambda: self.bio() == "updated",
            ),
            (
                lambda: Profile.objects.across_shards().update(bio="all"),
                lambda: Profile.objects.across_shards().filter(bio="all").count() == len(self.keys),
            ),
            (
                lambda: Activity.objects.bulk_create([Activity(profile_id=KEY, kind="b")]),
                lambda: self.has(kind="b"),
            ),
            (
                lambda: Activity.objects.get_or_create(profile=profile, kind="c"),
                lambda: self.has(kind="c"),
            ),
            (
                lambda: Profile.objects.update_or_create({"bio": "either"}, user_id=KEY),
                lambda: self.bio() == "either",
            ),
            (lambda: activity.delete(), lambda: not self.has(pk=activity.pk)),
        ]
        for number, (write, done) in enumerate(writes):
            with self.subTest(number):
                source = slot_cache.renew().owners[SLOTS[0]]
                target = {"shard_1": "shard_2", "shard_2": "shard_1"}[source]
                move = run.begin(source, target, SLOTS)
                self.step(move, "moved")
                with self.moving_meanwhile(move):
                    write()
                self.assertTrue(done())

    def bio(self) -> str:
        return Profile.objects.get(user_id=KEY).bio

    def has(self, **values: Any) -> bool:
        return Activity.objects.filter(profile=KEY, **values).count() == 1

    def test_an_update_of_all_touches_every_row_once_in_every_state(self) -> None:
        everybody = Activity.objects.across_shards()
        move, times = self.begin(), 0
        for state in ("planned", "copying", "catching up", "verified"):
            self.step(move, state)
            everybody.update(amount=F("amount") + 1)
            times += 1
            self.assertEqual({row.amount for row in everybody.all()}, {times})
        for state in ("switched", "owned"):
            self.step(move, state)
            if state == "owned":
                everybody.update(amount=F("amount") + 1)
                times += 1
            self.assertEqual({row.amount for row in everybody.all()}, {times})
            self.assertEqual(everybody.count(), 2 * len(self.keys))
        run.run(move, quiet)
        self.assertEqual({row.amount for row in everybody.all()}, {times})

    def test_a_delete_of_all_in_the_middle(self) -> None:
        move = self.begin()
        self.step(move, "verified")
        deleted, _ = Activity.objects.across_shards().delete()
        self.assertEqual(deleted, 2 * len(self.keys))
        run.run(move, quiet)
        self.assertEqual(Activity.objects.across_shards().count(), 0)

    def test_every_kind_of_fan_out_counts_once(self) -> None:
        move = self.begin()
        everybody = Profile.objects.across_shards().order_by("pk")
        for state in ("verified", "switched", "owned", "cleaned"):
            self.step(move, state)
            with self.subTest(state):
                self.assertEqual([p.pk for p in everybody], sorted(self.keys))
                self.assertEqual([p.pk for p in everybody.iterator(5)], sorted(self.keys))
                unordered = Profile.objects.across_shards().iterator(5)
                self.assertEqual(sorted(p.pk for p in unordered), sorted(self.keys))
                self.assertEqual(everybody.count(), len(self.keys))
                keyed = Profile.objects.filter(user_id__in=self.keys)
                self.assertEqual(keyed.count(), len(self.keys))
                groups = everybody.order_by("plan").values_list("plan").annotate(n=Count("pk"))
                self.assertEqual(list(groups), [("free", len(self.keys))])
                self.assertIn("Scan", everybody.explain())

    def test_a_transaction_is_run_again(self) -> None:
        move = self.begin()
        self.step(move, "moved")
        times: list[str] = []

        def raise_bio() -> str:
            times.append(sharding.get_shard_for_user_id(KEY))
            profile = Profile.objects.get(user_id=KEY)
            profile.bio = "again"
            profile.save()
            return "result"

        with self.moving_meanwhile(move):
            self.assertEqual(sharding.atomic(KEY).run(raise_bio), "result")
        self.assertGreater(len(times), 1)
        self.assertEqual(times[-1], "shard_2")
        self.assertEqual(self.bio(), "again")

    def test_a_transaction_of_which_the_user_moved_away_is_told(self) -> None:
        profile = Profile.objects.get(user_id=KEY)
        with self.assertRaises(SlotMoved), sharding.atomic(KEY):
            self.in_thread(self.move)
            slot_cache.renew()
            profile.save()

    def in_thread(self, function: Callable[[], Any]) -> None:
        def call() -> None:
            try:
                function()
            finally:
                connections.close_all()

        thread = threading.Thread(target=call)
        thread.start()
        thread.join()

    def test_a_deadlock_is_run_again_and_other_errors_are_not(self) -> None:
        codes = iter(["40P01", "40001", "22012"])

        def fail() -> None:
            with connections["shard_1"].cursor() as cursor:
                code = next(codes)
                cursor.execute(f"DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '{code}'; END $$")

        with self.assertRaises(DatabaseError):
            sharding.atomic(KEY).run(fail)
        self.assertEqual(list(codes), [])

    def test_inside_a_transaction_it_is_an_error(self) -> None:
        move = self.begin()
        self.step(move, "moved")
        with self.assertRaises(SlotMoved), transaction.atomic("shard_1"):
            Profile.objects.filter(user_id=KEY).update(bio="x")
        run.run(move, quiet)

    def test_a_shard_that_the_caller_named_is_not_left(self) -> None:
        with self.assertRaises(WrongShard):
            Profile(user_id=user_id(600, 5)).save(using="shard_1")
        move = self.begin()
        self.step(move, "verified")
        with self.settings(SHARDING_MOVE_PATIENCE=0.1), self.assertRaises(SlotMoved):
            Profile.objects.using("shard_2").filter(pk=KEY).update(bio="astray")
        run.run(move, quiet)
        self.assertNotEqual(self.bio(), "astray")

    def test_a_name_from_before_the_move_is_understood(self) -> None:
        profile = Profile.objects.get(user_id=KEY)
        self.move()
        slot_cache.renew()
        Profile(user_id=KEY, bio="late").save(using="shard_1")
        self.assertEqual(self.bio(), "late")
        loaded = Profile.objects.defer("bio").get(user_id=KEY)
        loaded._state.db = "shard_1"
        loaded.save()
        self.assertEqual(self.bio(), "late")
        profile.refresh_from_db()
        self.assertEqual(profile._state.db, "shard_2")

    def test_a_move_while_a_connection_is_opened(self) -> None:
        """To wait for a place in a pool may take longer than all of a move."""
        opened: list[str] = []
        original = DatabaseWrapper.get_new_connection

        def slowly(wrapper: DatabaseWrapper, parameters: dict[str, Any]) -> Any:
            if not opened:
                opened.append(wrapper.alias)
                self.in_thread(self.move)
            return original(wrapper, parameters)

        slot_cache.renew()
        connections["shard_1"].close()
        with mock.patch.object(DatabaseWrapper, "get_new_connection", slowly):
            self.assertEqual(Profile.objects.get(user_id=KEY)._state.db, "shard_2")
        self.assertEqual(opened, ["shard_1"])
        connections["shard_1"].close()
        self.assertEqual(Profile.objects.across_shards().count(), len(self.keys))

    def test_an_old_map_writes_nothing_astray(self) -> None:
        old = slot_cache.current()
        self.move()
        with self.frozen(old), self.assertRaises(DatabaseError):
            Profile.objects.create(user_id=user_id(SLOTS[0], 99))
        self.assertEqual(self.stored(), sorted(self.keys))

    @contextmanager
    def frozen(self, slot_map: SlotMap) -> Iterator[None]:
        """A process that does not learn of a new map at all."""
        original = slot_cache._renewed
        slot_cache._known = (slot_map, float("inf"))
        slot_cache._renewed = lambda *, unless: slot_map
        try:
            with self.settings(SHARDING_MOVE_PATIENCE=0.1):
                yield
        finally:
            slot_cache._renewed = original
            slot_cache.clear()

    def test_the_map_is_known_within_a_lifetime(self) -> None:
        before = slot_cache.current().version
        self.in_thread(self.move)
        wait_until(lambda: slot_cache.current().version > before + 1, "the new map")
