"""Methods that no case of the table does for."""

from itertools import product
from typing import Any

from asgiref.sync import async_to_sync
from django.db import transaction

from sharding import use_shard
from sharding.errors import AcrossShardsRefused, ShardKeyRequired
from sharding.models import ShardedManager, ShardedQuerySet
from tests.sharding.methods import cases
from tests.sharding.methods.cases import ACTIVITY, PROFILE, TWINS
from tests.sharding.methods.table import QUERYSET, by_name
from tests.sharding.methods.world import (
    ADA,
    BOB,
    EVE,
    SHARDS,
    WorldTestCase,
)
from users.models import Profile


class OtherTests(WorldTestCase):
    def test_bulk_update(self) -> None:
        for _, twin in TWINS:
            rows = list(Profile.objects.filter(pk__in=[ADA, BOB]))
            for row in rows:
                row.bio += "x"
            with self.assert_touches("shard_1", "shard_2", times=1):
                self.assertEqual(twin(Profile.objects).bulk_update(rows, ["bio"]), 2)
        self.assertEqual(Profile.objects.across_shards().filter(bio="xx").count(), 2)

    def test_routed(self) -> None:
        for name, (call, expected, shard) in cases.ROUTED.items():
            for queryset in (Profile.objects, Profile.objects.all().across_shards()):
                for prefix, twin in TWINS:
                    undone = transaction.atomic(using=shard)
                    with self.subTest(prefix + name), self.assert_touches(shard), undone:
                        self.assertEqual(call(twin(queryset)), expected)
                        transaction.set_rollback(True, using=shard)

    def test_without_a_key(self) -> None:
        lazy = {**cases.LAZY, **cases.REFUSED}
        for f, (name, case) in product((PROFILE, ACTIVITY), lazy.items()):
            for manager in (f.model.objects, f.model.objects.get_queryset()):
                with self.subTest(name), self.assert_touches():
                    made = case(manager, f)
                    if name == "none":
                        self.assertEqual(list(made), [])
                        continue
                    with self.assertRaisesMessage(ShardKeyRequired, f.model.__name__):
                        list(made)

    def test_what_evaluates_without_a_key(self) -> None:
        evaluating = {**cases.READS, "update": cases.WRITES["update"]}
        for f, (name, case) in product((PROFILE, ACTIVITY), evaluating.items()):
            for (prefix, twin), queryset in product(
                TWINS, (f.model.objects, f.model.objects.all())
            ):
                required = self.assertRaisesMessage(ShardKeyRequired, f.model.__name__)
                with self.subTest(prefix + name), self.assert_touches(), required:
                    case(twin(queryset), f)
        with self.assert_touches(), self.assertRaises(ShardKeyRequired):
            async_to_sync(Profile.objects.all().adelete)()

    def test_explain(self) -> None:
        for _, twin in TWINS:
            with self.assert_touches("shard_1", "shard_2", times=1):
                plans = twin(Profile.objects.filter(pk__in=[ADA, BOB])).explain()
            self.assertEqual(
                [line for line in plans.splitlines() if line.startswith("shard")],
                ["shard_1:", "shard_2:"],
            )
            with self.assert_touches("shard_2", times=1):
                plan = twin(Profile.objects.filter(pk=BOB)).explain(format="json")
            self.assertIn('"Node Type"', plan)

    def test_raw(self) -> None:
        sql = "SELECT * FROM users_profile ORDER BY user_id"
        for queryset in (Profile.objects.using("shard_2"), Profile.objects.filter(pk=BOB)):
            with self.assert_touches("shard_2", times=1):
                self.assertEqual([row.pk for row in queryset.raw(sql)], [BOB, EVE])
        with use_shard("shard_2"), self.assert_touches("shard_2"):
            self.assertEqual(len(list(Profile.objects.raw(sql))), 2)
        with self.assert_touches(), self.assertRaises(ShardKeyRequired):
            Profile.objects.raw(sql)
        message = by_name(QUERYSET)["raw"].removeprefix("refused: ")
        with self.assert_touches(), self.assertRaisesMessage(AcrossShardsRefused, message):
            Profile.objects.across_shards().raw(sql)

    def test_what_sends_nothing(self) -> None:
        with self.assert_touches():
            self.assertFalse(Profile.objects.all().ordered)
            self.assertTrue(Profile.objects.order_by("plan").ordered)
            self.assertIn("users_profile", str(Profile.objects.all().query))

    def test_as_manager(self) -> None:
        class PayingQuerySet(ShardedQuerySet[Profile]):
            def paying(self) -> "PayingQuerySet":
                return self.exclude(plan="free")

        manager: Any = PayingQuerySet.as_manager()
        self.check_own_manager(manager)
        self.assertTrue(manager.deconstruct()[0])

    def test_from_queryset(self) -> None:
        class PayingQuerySet(ShardedQuerySet[Profile]):
            def paying(self) -> "PayingQuerySet":
                return self.exclude(plan="free")

        self.check_own_manager(ShardedManager.from_queryset(PayingQuerySet)())

    def check_own_manager(self, manager: Any) -> None:
        manager.model = Profile
        self.assertIsInstance(manager, ShardedManager)
        with self.assert_touches("shard_1"):
            self.assertEqual(manager.paying().filter(pk=ADA).get().display_name, "Ada")
        with self.assert_touches(*SHARDS):
            self.assertEqual(manager.across_shards().paying().count(), 3)

    def test_in_bulk_looks_at_the_field_first(self) -> None:
        with self.assert_touches():
            self.assertEqual(Profile.objects.in_bulk([]), {})
            with self.assertRaisesMessage(ValueError, "plan"):
                Profile.objects.in_bulk([], field_name="plan")
