"""Every method of querysets and managers, sync and async, called as the table says.

With one key, with keys on two shards, across all shards, and with none; on managers and on related
managers. The answers are those of one database, and only the shards concerned are asked.
"""

import importlib
import inspect
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import product
from typing import Any

from asgiref.sync import async_to_sync
from django.db import models, transaction
from django.test import SimpleTestCase

from sharding.errors import AcrossShardsRefused
from sharding.models import ShardedManager, ShardedQuerySet
from tests.sharding.methods import cases, document
from tests.sharding.methods.cases import ACTIVITY, PROFILE, TWINS, Fields
from tests.sharding.methods.table import MANAGER, QUERYSET, RELATED, by_name
from tests.sharding.methods.world import (
    ADA,
    BOB,
    EVE,
    REFERENCE,
    SHARDS,
    WorldTestCase,
    plain,
)
from users.models import Activity, Profile

# Names for which no case in cases.py would do -> the test that calls them.
TESTS = {
    "across_shards": "test_keys.NoKeyTests.test_asks_every_shard_where_that_is_allowed",
    "explain": "test_other_methods.OtherTests.test_explain",
    "missing_shards": "test_partial.DownTests.test_a_partial_answer_says_what_it_lacks",
    "bulk_update": "test_other_methods.OtherTests.test_bulk_update",
    "raw": "test_other_methods.OtherTests.test_raw",
    "using": "test_keys.KeyTests.test_using_goes_before_a_key",
    "as_manager": "test_other_methods.OtherTests.test_as_manager",
    "db": "test_keys.CopyTests.test_the_shard_is_asked_each_time",
    "ordered": "test_other_methods.OtherTests.test_what_sends_nothing",
    "query": "test_other_methods.OtherTests.test_what_sends_nothing",
    "resolve_expression": "test_subqueries_elsewhere.OtherDatabaseTests.test_of_the_primary",
    "db_manager": "test_table.ManagerTests.test_reads",
    "from_queryset": "test_other_methods.OtherTests.test_from_queryset",
    "get_queryset": "test_other_methods.OtherTests.test_without_a_key",
    "add": "test_relations.RelatedManagerTests.test_add_refuses_what_is_another_users",
    "set": "test_relations.RelatedManagerTests.test_set_refuses_what_is_another_users",
    "aadd": "test_table.RelatedManagerTests.test_async",
    "aset": "test_table.RelatedManagerTests.test_async",
    "get_prefetch_querysets": "test_relations.PrefetchTests.test_reverse_of_several_shards",
}
# No queries, and the same for every manager.
UNTOUCHED = {
    *("auto_created", "check", "contribute_to_class", "creation_counter", "deconstruct"),
    *("use_in_migrations", "core_filters", "do_not_call_in_templates", "field", "instance"),
    *("model", "name", "get_prefetch_queryset"),
}

KINDS: dict[str, Collection[str]] = {
    "lazy": cases.LAZY,
    "fanned out": {**cases.READS, **cases.WRITES},
    "routed": cases.ROUTED,
    "refused": cases.REFUSED,
}
CASES = {**cases.LAZY, **cases.READS, **cases.WRITES, **cases.REFUSED, **cases.ROUTED}


def public(thing: object) -> set[str]:
    return {name for name in dir(thing) if not name.startswith("_")}


class CompletenessTests(SimpleTestCase):
    """Nothing that Django has, or will have, goes unmentioned or untested."""

    databases = "__all__"

    def test_the_table_has_every_name(self) -> None:
        profile = Profile(pk=BOB)
        profile._state.adding = False
        ours = {"across_shards"}
        queryset, manager = by_name(QUERYSET), by_name(MANAGER)
        for thing, names in (
            (models.QuerySet, queryset.keys() - ours - {"missing_shards"}),
            (ShardedQuerySet, queryset.keys()),
            (models.Manager, (queryset.keys() & public(models.Manager)) | manager.keys()),
            (ShardedManager, (queryset.keys() & public(models.Manager)) | manager.keys() | ours),
        ):
            self.assertEqual(public(thing), set(names), thing)
        beyond = public(profile.activities) - public(ShardedManager)
        self.assertEqual(beyond, by_name(RELATED).keys())

    def test_every_name_has_a_test(self) -> None:
        for table in (QUERYSET, MANAGER, RELATED):
            for names, text in table.items():
                first, *twin = names.split()
                for name in (first, *twin):
                    with self.subTest(name):
                        self.assertTrue({first, name} & (CASES.keys() | TESTS.keys() | UNTOUCHED))
                kind = text.partition(":")[0]
                if first in CASES and kind in KINDS:
                    self.assertIn(first, KINDS[kind])

    def test_every_case_and_every_test_is_one(self) -> None:
        known = {*by_name(QUERYSET), *by_name(MANAGER), *by_name(RELATED)}
        self.assertLessEqual(CASES.keys() | TESTS.keys() | UNTOUCHED, known)
        self.assertFalse(CASES.keys() & TESTS.keys())
        for path in TESTS.values():
            module, test_class, method = path.split(".")
            found = importlib.import_module(f"tests.sharding.methods.{module}")
            self.assertTrue(callable(getattr(getattr(found, test_class), method)), path)

    def test_what_templates_and_managers_look_at(self) -> None:
        """An override that lost such a mark would be called by templates, or be on managers."""
        for name, theirs in inspect.getmembers(models.QuerySet, inspect.isfunction):
            ours = getattr(ShardedQuerySet, name)
            for mark in ("alters_data", "queryset_only"):
                self.assertEqual(getattr(ours, mark, None), getattr(theirs, mark, None), name)

    def test_the_documentation_has_this_table(self) -> None:
        with document.PATH.open() as file:
            self.assertIn(document.tables(), file.read())


@dataclass(frozen=True)
class Mode:
    """What a case is called of, what its answer is compared with, and which shards it may ask."""

    name: str
    fields: Fields
    ours: Any
    reference: Any
    shards: tuple[str, ...]
    ordered: bool = True

    def same(self, answer: Any) -> Any:
        """The answer as far as it is certain: without an order, the rows in any."""
        return answer if self.ordered or not isinstance(answer, list) else sorted(answer, key=repr)


class MethodTests(WorldTestCase):
    """On querysets."""

    def modes(self) -> Iterator[Mode]:
        for f in (PROFILE, ACTIVITY):
            mine, all_rows = f.model.objects.order_by(f.moment), plain(f.model).order_by(f.moment)
            one, two = {f.key: BOB}, {f"{f.key}__in": [ADA, BOB]}
            yield Mode("one key", f, mine.filter(**one), all_rows.filter(**one), ("shard_2",))
            yield Mode("two keys", f, mine.filter(**two), all_rows.filter(**two), SHARDS[:2])
            yield Mode("across shards", f, mine.across_shards(), all_rows, SHARDS)

    def each(self, table: dict[str, Any]) -> Iterator[tuple[str, Any, Mode]]:
        """Every case with every mode; what only querysets have, not on managers."""
        for (name, case), mode in product(table.items(), self.modes()):
            if hasattr(mode.ours, name):
                yield name, case, mode

    def test_lazy(self) -> None:
        for name, case, mode in self.each(cases.LAZY):
            with self.subTest(name, mode=mode):
                with self.assert_touches():
                    made = case(mode.ours, mode.fields)
                self.assertIsInstance(made, ShardedQuerySet)
                expected = list(case(mode.reference, mode.fields))
                self.assertEqual(bool(expected), name != "none")
                with self.assert_touches(*mode.shards if name != "none" else ()):
                    found = list(made)
                self.assertEqual(mode.same(found), mode.same(expected))

    def test_reads(self) -> None:
        for _, case, mode in self.each(cases.READS):
            expected = mode.same(case(mode.reference, mode.fields))
            for prefix, twin in TWINS:
                with self.subTest(prefix, mode=mode):
                    with self.assert_touches(*mode.shards):
                        found = case(twin(mode.ours), mode.fields)
                    self.assertEqual(mode.same(found), expected)

    def test_writes(self) -> None:
        for (name, case, mode), (prefix, twin) in product(self.each(cases.WRITES), TWINS):
            shards = mode.shards if name != "bulk_create" else ("shard_2",)
            with self.subTest(prefix + name, mode=mode), self.undone():
                expected = case(mode.reference, mode.fields)
                with self.assert_touches(*shards):
                    self.assertEqual(case(twin(mode.ours), mode.fields), expected)
                self.assert_as_the_reference(mode.fields)

    def test_refused(self) -> None:
        for name, case, mode in self.each(cases.REFUSED):
            message = by_name(QUERYSET)[name].removeprefix("refused: ")
            made = case(mode.ours, mode.fields)
            with self.subTest(name, mode=mode):
                if len(mode.shards) == 1:
                    with self.assert_touches(*mode.shards):
                        found = list(made)
                    self.assertCountEqual(found, list(case(mode.reference, mode.fields)))
                    continue
                for read in (list, lambda q: q.count(), lambda q: list(q.iterator())):
                    refused = self.assertRaisesMessage(AcrossShardsRefused, message)
                    with self.assert_touches(), refused:
                        read(made)

    @contextmanager
    def undone(self) -> Iterator[None]:
        with ExitStack() as stack:
            for alias in (REFERENCE, *SHARDS):
                stack.enter_context(transaction.atomic(using=alias))
            yield
            for alias in (REFERENCE, *SHARDS):
                transaction.set_rollback(True, using=alias)

    def assert_as_the_reference(self, f: Fields) -> None:
        """Fail unless the shards hold the reference's rows, each where it belongs."""
        changing = {"id", "updated_at", f.moment}  # different each time
        names = {field.attname for field in f.model._meta.concrete_fields} - changing
        ours, reference = (
            [sorted(row.items()) for row in queryset.values(*names)]
            for queryset in (f.model.objects.across_shards(), plain(f.model))
        )
        self.assertCountEqual(ours, reference)
        self.assert_on_shards(f.model)


class ManagerTests(MethodTests):
    """On managers that name a database, whose rows have no order."""

    def modes(self) -> Iterator[Mode]:
        for f in (PROFILE, ACTIVITY):
            for ours in (f.model.objects.db_manager("shard_2"), f.model.objects.using("shard_2")):
                reference = plain(f.model).filter(**{f"{f.key}__in": [BOB, EVE]})
                yield Mode("one database", f, ours, reference, ("shard_2",), ordered=False)


class RelatedManagerTests(MethodTests):
    """On related managers."""

    def modes(self) -> Iterator[Mode]:
        ours = Profile(pk=BOB)
        ours._state.adding = False
        reference = plain(Activity).filter(profile=BOB)
        yield Mode("related", ACTIVITY, ours.activities, reference, ("shard_2",), ordered=False)

    def test_async(self) -> None:
        bob = Profile.objects.get(pk=BOB)
        with self.assert_touches("shard_2"):
            made = async_to_sync(bob.activities.acreate)(kind="new")
            found, is_new = async_to_sync(bob.activities.aget_or_create)(kind="new")
            changed, _ = async_to_sync(bob.activities.aupdate_or_create)(kind="new")
            async_to_sync(bob.activities.aadd)(Activity(kind="new"), bulk=False)
            async_to_sync(bob.activities.aset)(bob.activities.all())
        self.assertEqual((made, made, is_new), (found, changed, False))
        self.assertEqual(made.profile_id, BOB)
        self.assertEqual(bob.activities.count(), 4)


class MethodInTurnTests(MethodTests):
    in_turn = True
