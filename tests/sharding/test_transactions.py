"""Transactions on one user's shard."""

from collections.abc import Callable
from uuid import UUID

from django.db import connections, transaction
from django.test import TestCase

from sharding import atomic, get_shard_for_user_id, on_commit
from sharding.errors import WrongShard
from tests.sharding.ids import id_on
from users.models import Activity, Profile


class AtomicTests(TestCase):
    databases = "__all__"
    here: UUID
    beside: UUID
    there: UUID

    @classmethod
    def setUpTestData(cls) -> None:
        cls.here, cls.beside, cls.there = id_on("shard_1"), id_on("shard_1"), id_on("shard_2")
        for user_id in (cls.here, cls.there):
            Profile.objects.create(user_id=user_id)

    def test_the_block_is_one_transaction_on_the_users_shard(self) -> None:
        with self.assertRaises(ZeroDivisionError), atomic(self.here) as alias:
            self.assertEqual(alias, get_shard_for_user_id(self.here))
            Profile.objects.filter(user_id=self.here).update(bio="lost")
            1 / 0  # noqa: B018
        self.assertEqual(Profile.objects.get(user_id=self.here).bio, "")

    def test_a_user_on_the_same_shard_may_be_written_too(self) -> None:
        with atomic(self.here), atomic(self.beside):
            Profile.objects.create(user_id=self.beside)
        self.assertTrue(Profile.objects.filter(user_id=self.beside).exists())

    def test_every_write_to_another_shard_is_refused(self) -> None:
        there = Profile.objects.get(user_id=self.there)
        own = Profile.objects.filter(user_id=self.there)
        writes: dict[str, Callable[[], object]] = {
            "save": there.save,
            "delete": there.delete,
            "queryset update": lambda: own.update(bio="x"),
            "queryset delete": own.delete,
            "bulk_create": lambda: Activity.objects.bulk_create([Activity(profile=there)]),
            "create": lambda: Activity.objects.create(profile=there, kind="x"),
        }
        for name, write in writes.items():
            with (
                self.subTest(name),
                self.assertRaisesMessage(WrongShard, "shard_2 inside a transaction on shard_1"),
                atomic(self.here),
                transaction.atomic(using="shard_2"),
            ):
                write()
        self.assertEqual(own.get().bio, "")

    def test_reads_of_other_shards_and_writes_to_the_primary_are_not(self) -> None:
        with atomic(self.here):
            self.assertEqual(Profile.objects.across_shards().count(), 2)
            with transaction.atomic(), connections["default"].cursor() as cursor:
                cursor.execute("SELECT 1")

    def test_a_block_on_another_shard_inside_is_refused(self) -> None:
        with self.assertRaises(WrongShard), atomic(self.here), atomic(self.there):
            self.fail("entered")

    def test_afterwards_every_shard_may_be_written(self) -> None:
        with atomic(self.here):
            pass
        Profile.objects.filter(user_id=self.there).update(bio="x")
        self.assertEqual(Profile.objects.get(user_id=self.there).bio, "x")


class OnCommitTests(TestCase):
    databases = "__all__"

    def test_the_function_runs_after_the_shards_transaction(self) -> None:
        user_id = id_on("shard_3")
        calls: list[str] = []
        with self.captureOnCommitCallbacks(using="shard_3", execute=True), atomic(user_id):
            on_commit(user_id, lambda: calls.append("after"))
            calls.append("inside")
        self.assertEqual(calls, ["inside", "after"])

    def test_the_function_is_dropped_with_the_transaction(self) -> None:
        user_id = id_on("shard_3")
        with (
            self.captureOnCommitCallbacks(using="shard_3") as callbacks,
            self.assertRaises(ZeroDivisionError),
            atomic(user_id),
        ):
            on_commit(user_id, self.fail)
            1 / 0  # noqa: B018
        self.assertEqual(callbacks, [])
