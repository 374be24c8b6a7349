"""Every queryset over all shards answers as one database with all rows does, or is refused."""

import gc
from itertools import product
from typing import Any
from unittest.mock import patch

from django.db import DataError, connections
from django.db.models import F
from django.test.utils import CaptureQueriesContext

from sharding import get_shard_for_user_id
from tests.sharding.orm.data import COUNTRIES
from tests.sharding.orm.reference import DifferentialTestCase, Example
from tests.sharding.orm.strategies import heads, sentences, ties, values
from users.models import Activity, Profile


class RowTests(DifferentialTestCase):
    def test_rows(self) -> None:
        examples = sentences(
            'list({source}{filters}{annotations}{loading}.order_by("pk"))',
            'list({source}{filters}{annotations}{loading}.order_by("pk").iterator({size}))',
            'list({source}{filters}{annotations}.order_by("pk").reverse())',
            'list(({source}.filter({condition}) | {source}.exclude({condition})).order_by("pk"))',
            'list(({source}.filter({condition}) & {source}.exclude({filter})).order_by("-pk"))',
        )
        self.assert_agreement(examples, count=160)

    def test_windows(self) -> None:
        examples = sentences(
            'list({source}.filter({condition}).annotate(x={window}).order_by("x", {terms}, "pk"))',
            'list({source}.exclude({condition}).annotate(x={window}).order_by("pk"){slice})',
            'list({source}.annotate(x={window}).filter(x__gt=1).order_by("-x", "pk"){slice})',
            'list({source}.alias(x={window}).filter(x=2).order_by("pk"){slice})',
            'list({source}.annotate(x={window}).values("pk", "x").order_by("x", "pk"){slice})',
            "{source}.annotate(x={window}).filter(x=1).count()",
            "{source}.annotate(x={window}).filter(x=3).exists()",
            '{source}.annotate(x={window}).aggregate(a=Max("x"), b=Count("x"))',
        )
        self.assert_agreement(examples, count=100)

    def test_one_row(self) -> None:
        examples = sentences(
            '{source}{filters}.order_by({terms}, "pk").first()',
            '{source}{filters}.order_by({terms}, "pk").last()',
            "{source}{filters}{loading}.first()",
            "{source}{filters}.last()",
            '{source}.exclude({condition}).order_by({terms}, "pk")[2]',
            '{source}.latest({field}, "pk")',
            '{source}{filters}.earliest({field}, "pk")',
            "{source}.exclude({condition}).get(pk={id})",
            "{source}{filters}.contains({source}.get(pk={id}))",
            "{source}{filters}.in_bulk({ids})",
        )
        self.assert_agreement(examples, count=150)


class OrderTests(DifferentialTestCase):
    def test_order(self) -> None:
        examples = sentences(
            'list({source}{filters}.order_by({terms}, "pk"){slice})',
            'list({source}{filters}.order_by({terms}, "-pk").reverse(){slice})',
            'list({source}{filters}.order_by({terms}, "pk").iterator({size}))',
        )
        self.assert_agreement(examples, count=160)

    def test_ties(self) -> None:
        self.assert_agreement(ties(), count=150)


class ValuesTests(DifferentialTestCase):
    def test_values(self) -> None:
        examples = values(
            "list({source}{filters}.values({columns}).order_by({order}){slice})",
            "list({source}{filters}{annotated}.values_list({names}).order_by({order}){slice})",
            "list({source}{filters}{annotated}.values_list({names}, named=True).order_by({order}))",
            "list({source}{filters}.values({columns}).order_by({order}).iterator({size}))",
            'list({source}{filters}.order_by({field}, "pk").values({columns}){slice})',
            'list({source}{filters}{annotated}.order_by({field}, "pk").values_list({names}){cut})',
            'list({source}{filters}.order_by({field}, "pk").values_list({column}, flat=True))',
            'list({source}{filters}.dates({when_field}, "month", order="DESC"))',
            'list({source}{filters}.datetimes({when_field}, "day", tzinfo=ZoneInfo("Asia/Tokyo")))',
        )
        self.assert_agreement(examples, count=160)

    def test_distinct(self) -> None:
        examples = values(
            "list({source}{filters}.values({columns}).order_by({order}).distinct(){slice})",
            "list({source}{filters}{annotated}.values_list({names}).distinct().order_by({order}))",
            "list({source}{filters}.values({columns}).distinct().order_by({order}).iterator({size}))",
            "len({source}{filters}.values({columns}).distinct(){slice})",
            "{source}{filters}.values({columns}).distinct(){cut}.count()",
            "{source}{filters}.values({columns}).distinct().order_by({field}){cut}.count()",
            "len({source}{filters}.values({columns}).distinct().order_by({field}))",
            "{source}{filters}.values({columns}).distinct(){cut}.exists()",
            'list({source}{filters}.distinct().order_by({terms}, "pk"){slice})',
            'list({source}{filters}.distinct().order_by({joined}, "pk"){slice})',
            '{source}{filters}.distinct().order_by({joined}, "pk"){cut}.count()',
        )
        self.assert_agreement(examples, count=160)

    def test_repeated_rows(self) -> None:
        examples = values(
            "list({source}{filters}.values({columns}).order_by({order}){slice})",
            "list({source}{filters}.values({columns}).distinct().order_by({order}){slice})",
            "list({source}{filters}.values({columns}).annotate(n={exact}).order_by({order}))",
            "list({source}{filters}{annotated}.values_list({names}).order_by({order}).iterator(7))",
            "{source}{filters}.values({columns}).distinct(){cut}.count()",
            joined=True,
        )
        self.assert_agreement(examples, count=100)

    def test_heads(self) -> None:
        examples = heads(
            'list({source}{filters}.order_by({order}, {terms}, "pk").distinct({heads}){slice})',
            'list({source}{filters}.order_by({order}, "pk").distinct({heads}).iterator({size}))',
            'list({source}.order_by({order}, {term}, "pk").distinct({heads}).values({heads}))',
            "list({source}{filters}.order_by({order}).distinct({heads}).values_list({heads}))",
            "list({source}.order_by({part}, {order}, 'pk').values({part}, {heads}){slice})",
            "{source}{filters}.distinct({heads}){cut}.count()",
            "{source}{filters}.order_by({order}).distinct({heads}){cut}.exists()",
        )
        self.assert_agreement(examples, count=150)


class GroupTests(DifferentialTestCase):
    def test_groups(self) -> None:
        examples = values(
            "list({source}{filters}.values({columns}).annotate(n={aggregate}).order_by({order}))",
            "list({source}{filters}.values({columns}).annotate(n={aggregate}, m={aggregate})"
            ".order_by({order}){slice})",
            "list({source}{filters}{annotated}.values_list({names}).annotate(n={aggregate})"
            ".order_by({order}){slice})",
            "list({source}{filters}.values({columns}).annotate(n={exact}).order_by('n', {order}))",
            "list({source}{filters}.values({columns}).annotate(n={aggregate}).alias(m={exact})"
            ".order_by('-m', {order}){slice})",
            "list({source}{filters}.values({columns}).annotate(n={aggregate}).order_by({order})"
            '.values("n"))',
            "list({source}{filters}.values({columns}).annotate(n={aggregate}).order_by({order})"
            ".values({names}))",
            "list({source}{filters}.values({columns}).order_by({order}).annotate(n={aggregate})"
            ".iterator({size}))",
            "list({source}{filters}.values({columns}).annotate(n={exact}).order_by('n')"
            ".values_list('n').distinct(){slice})",
            "{source}{filters}.values({columns}).annotate(n={aggregate}){cut}.count()",
            "{source}{filters}.values({columns}).annotate(n={aggregate}).order_by({field}).count()",
            "{source}{filters}.values({columns}).annotate(n={aggregate}){cut}.exists()",
        )
        self.assert_agreement(examples, count=160)

    def test_groups_of_one_shard(self) -> None:
        examples = values(
            "list({source}{filters}.values({key}, {columns}).annotate(n={whole})"
            ".order_by({key}, {order}){slice})",
            'list({source}{filters}.annotate(n={whole}).order_by("n", "pk"){slice})',
            'list({source}.annotate(f={filtered}, n=Count("f")).order_by("-n", "pk"))',
            'list({source}{filters}.annotate(n=Count("pk")).filter(n__gt={n}).order_by("pk"))',
            'list({source}{filters}.values({key}).annotate(n=Count("pk")).filter(n__gt={n})'
            '.order_by("-n", {key}))',
            '{source}{filters}.values({key}).annotate(n=Count("pk")).filter(n__gt={n}){cut}.count()',
            '{source}{filters}.values({key}).annotate(n=Count("pk")).filter(n__gt={n}).exists()',
        )
        self.assert_agreement(examples, count=150)


class AggregateTests(DifferentialTestCase):
    def test_aggregates(self) -> None:
        examples = sentences(
            "{source}{filters}.aggregate(a={aggregate}, b={aggregate})",
            "{source}{filters}.aggregate(a={aggregate})",
            "{source}{filters}{annotations}.aggregate(a={aggregate})",
            '{source}{filters}.annotate(n={exact}).aggregate(a=Max("n"), b=Count("n"))',
            '{source}{filters}.values({key}).annotate(n=Count("pk")).aggregate(Sum("n"), Avg("n"))',
            "{source}{filters}.distinct().aggregate(a={exact})",
            "{source}{filters}.order_by({terms}).aggregate(a={exact})",
            '{source}{filters}.annotate(n={decimal}).aggregate(a=Avg("n"), b=Variance("n"))',
            "{source}.filter(pk__in=[]).aggregate(a={aggregate}, b={aggregate})",
        )
        self.assert_agreement(examples, count=160)

    def test_not_a_number(self) -> None:
        number = 'When(country={country}, then=Cast(Value("{number}"), FloatField()))'
        template = f"P.aggregate(a={{name}}(Case({number}, default=Value(1.5))))"
        for name in ("Max", "Min", "Sum", "Avg", "Variance", "StdDev"):
            for number, country in product(("NaN", "Infinity", "-Infinity"), COUNTRIES):
                code = template.format(name=name, number=number, country=repr(country))
                self.assert_same_answer(Example(code))
        self.assertEqual(self.answered, 6 * 3 * len(COUNTRIES))

    def test_many_digits(self) -> None:
        number = 'F("amount") * F("amount") * F("amount") / Value(Decimal(7))'
        for name in ("Sum", "Avg", "Variance", "StdDev", "Max"):
            self.assert_same_answer(Example(f"A.aggregate(a={name}({number}))"))
            groups = f'A.values("kind").annotate(a={name}({number})).order_by("kind")'
            self.assert_same_answer(Example(f"list({groups})"))
        self.assertEqual(self.answered, 2 * 5)

    def test_counts(self) -> None:
        examples = sentences(
            "{source}{filters}.count()",
            "{source}{filters}{cut}.count()",
            "{source}{filters}{annotations}.count()",
            "{source}{filters}.order_by({terms}){cut}.count()",
            "{source}{filters}.distinct(){cut}.count()",
            "{source}{filters}{annotations}.exists()",
            "{source}{filters}{cut}.exists()",
            "{source}{filters}.order_by({terms}).distinct(){cut}.exists()",
        )
        self.assert_agreement(examples, count=150)


class RelatedTests(DifferentialTestCase):
    def test_prefetch(self) -> None:
        examples = sentences(
            'list({source}{filters}.prefetch_related({prefetch}).order_by("pk"))',
            'list({source}.prefetch_related({prefetch}).order_by({terms}, "pk"){slice})',
            'list({source}{filters}.prefetch_related({prefetch}).order_by("pk").iterator(7))',
        )
        self.assert_agreement(examples, count=100)

    def test_an_error_in_the_middle_spoils_no_later_answer(self) -> None:
        """Of the tests above: an open cursor that is closed too late ends the transaction."""
        broken = 'Prefetch("profile", P.annotate(x=1 / Length("bio") * 0))'
        error = self._answer(f"list(A.prefetch_related({broken}).iterator(7))", self.reference)
        self.assertIsInstance(error, DataError)
        del error
        gc.collect()
        self.assert_same_answer(Example("P.count()"))

    def test_objects_know_their_shard(self) -> None:
        activities: Any = self.sharded["A"].select_related("profile").order_by("kind", "pk")
        profiles: Any = self.sharded["P"].prefetch_related("activities").order_by("bio")
        found = [*activities, *(each.profile for each in activities), *profiles]
        found += [each for profile in profiles for each in profile.activities.all()]
        found += activities.iterator(chunk_size=7)
        for each in found:
            self.assertEqual(each._state.db, get_shard_for_user_id(each.shard_key_value))


class MetaOrderingTests(DifferentialTestCase):
    """Models that say themselves how they are ordered."""

    def setUp(self) -> None:
        super().setUp()
        for model, ordering in (
            (Profile, ["country", "-display_name", "pk"]),
            (Activity, [F("profile__bio").desc(), "kind", "pk"]),
        ):
            ordered = patch.object(model._meta, "ordering", ordering)
            ordered.start()
            self.addCleanup(ordered.stop)

    def test_default_order(self) -> None:
        examples = values(
            "list({source}{filters}{annotations}{slice})",
            "list({source}{filters}.reverse().iterator({size}))",
            "list({source}{filters}.values({columns}){slice})",
            "list({source}{filters}.values({columns}).annotate(n={aggregate}).order_by({order}))",
            'sorted({source}{filters}.values_list({column}).annotate(Count("pk")), key=repr)',
            "len({source}{filters}.values({columns}).distinct())",
            "{source}{filters}.values({columns}).distinct(){cut}.count()",
            'list(A.order_by("profile", "pk"))',
            "{source}{filters}.last()",
        )
        self.assert_agreement(examples, count=100)


class WatchedTests(DifferentialTestCase):
    """Where somebody listens to a connection, the shards are asked one after the other."""

    def test_each_kind(self) -> None:
        examples = values(
            'list({source}{filters}.order_by({terms}, "pk"){slice})',
            "list({source}{filters}.values({columns}).annotate(n={aggregate}).order_by({order}))",
            "{source}{filters}.aggregate(a={aggregate})",
            "{source}{filters}.count()",
        )
        with CaptureQueriesContext(connections["shard_1"]):
            self.assert_agreement(examples, count=50)
