"""Values that Python orders in another way than PostgreSQL: refused, with what to write instead."""

from typing import Any
from unittest.mock import patch

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import (
    CharField,
    Count,
    F,
    GenericIPAddressField,
    JSONField,
    Max,
    OuterRef,
    Subquery,
    Window,
)
from django.db.models.functions import Cast, Collate, Lower, Now
from django.test import TestCase
from django.test.utils import CaptureQueriesContext

from sharding import conf
from sharding.errors import AcrossShardsRefused
from tests.sharding.orm.reference import DifferentialTestCase, Example
from tests.sharding.orm.strategies import heads, sentences
from users.models import Activity, Profile


class _Citext(CharField):
    """A kind of column that Django does not know compares in its own way."""

    def db_type(self, connection: BaseDatabaseWrapper) -> str:
        return "citext"


class RefusedTests(TestCase):
    databases = {"default", *conf.shards()}

    def setUp(self) -> None:
        self.profiles = Profile.objects.across_shards()
        self.german = Collate("display_name", "de-x-icu")

    def assert_refused(self, queryset: Any, *, what: str) -> None:
        with self.assertRaises(AcrossShardsRefused) as raised:
            list(queryset)
        self.assertIn(what, str(raised.exception))

    def test_order(self) -> None:
        addresses = self.profiles.annotate(x=Cast("country", GenericIPAddressField()))
        for queryset, what in (
            (self.profiles.order_by("settings"), "ORDER BY of a JSONField is refused"),
            (self.profiles.order_by("settings__nick"), "ORDER BY of a JSONField is refused"),
            (addresses.order_by("-x"), "ORDER BY of a GenericIPAddressField is refused"),
            (self.profiles.order_by(Cast("bio", _Citext())), "ORDER BY of a _Citext is refused"),
            (self.profiles.order_by(Now() - F("created_at")), "what is reckoned from Now()"),
            (self.profiles.order_by(self.german), "a text with the collation 'de-x-icu'"),
            (self.profiles.order_by(Lower(self.german).desc()), "the collation 'de-x-icu'"),
        ):
            with self.subTest(what=what):
                self.assert_refused(queryset, what=what)

    def test_groups_and_distinct(self) -> None:
        profiles = self.profiles.annotate(x=Lower(self.german), j=F("settings__nick"))
        for queryset, what in (
            (profiles.values("settings").distinct(), "distinct() of a JSONField"),
            (profiles.distinct("settings"), "distinct() of a JSONField"),
            (profiles.values("x").distinct(), "distinct() of a text with the collation"),
            (profiles.values(x=Now()).annotate(Count("pk")), "GROUP BY of what is reckoned"),
            (profiles.values("j").annotate(Count("pk")), "GROUP BY of a JSONField"),
            (profiles.values("x").annotate(Count("pk")), "GROUP BY of a text with the collation"),
        ):
            with self.subTest(what=what):
                self.assert_refused(queryset, what=what)

    def test_windows(self) -> None:
        # Where there is no activity the key is NULL, and such rows of all shards are one partition.
        for partition in ("country", "activities__profile"):
            window = Window(Count("pk"), partition_by=partition)
            self.assert_refused(self.profiles.annotate(x=window), what="A window function over")

    def test_extremes(self) -> None:
        inner = Profile.objects.filter(pk=OuterRef("profile")).values(x=self.german)
        activities = Activity.objects.across_shards().annotate(x=Subquery(inner))
        for queryset, expression in (
            (self.profiles, Max(self.german)),
            (self.profiles, Max(Lower(self.german))),
            (self.profiles, Max(Cast("bio", JSONField()))),
            (activities, Max("x")),
        ):
            with self.subTest(expression), self.assertRaises(AcrossShardsRefused):
                queryset.aggregate(x=expression)


class CodePointTests(DifferentialTestCase):
    """Texts whose order is that of their code points."""

    def test_named(self) -> None:
        self.assert_same_answer(Example('list(P.order_by(Collate("display_name", "C"), "pk"))'))
        self.assert_same_answer(Example('P.aggregate(x=Max(Lower(Collate("bio", "POSIX"))))'))
        self.assertEqual(self.answered, 2)


@patch("sharding.orm.comparing._by_code_point", lambda alias: False)
class OtherServerTests(DifferentialTestCase):
    """Servers that sort texts by a language: asked for the order of code points instead.

    These here do sort by code point, so that the answers show only that the SQL is valid.
    """

    def test_order(self) -> None:
        examples = sentences(
            'list({source}{filters}.order_by({text}.asc(), {terms}, "pk"){slice})',
            'list({source}{filters}.order_by({text}.desc(), "pk").iterator({size}))',
            'list({source}{filters}.annotate(x={text}).order_by("-x", "pk").values("x"){slice})',
            'list({source}.annotate(x={text}).values("x").distinct().order_by("x"))',
            'list({source}.values(x={text}).annotate(n=Count("pk")).order_by("x"))',
            'list({source}.values(x={text}).annotate(n={exact}).order_by("n", "-x"){slice})',
        )
        self.assert_agreement(examples, count=60)

    def test_heads(self) -> None:
        examples = heads('list({source}{filters}.order_by({order}, "pk").distinct({heads}))')
        self.assert_agreement(examples, count=30)

    def test_asks_for_code_points(self) -> None:
        ordered = Profile.objects.across_shards().order_by("display_name")
        with CaptureQueriesContext(connections["shard_1"]) as queries:
            list(ordered)
        self.assertIn('ORDER BY "users_profile"."display_name" COLLATE "C" ASC', str(queries[0]))

    def test_extremes_are_refused(self) -> None:
        with self.assertRaises(AcrossShardsRefused) as raised:
            Profile.objects.across_shards().aggregate(Max("bio"))
        self.assertIn("Collate(…, 'C')", str(raised.exception))
