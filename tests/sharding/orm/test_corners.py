"""Corners that generated examples seldom meet, most of them once wrong."""

from unittest.mock import patch

from django.db.models import Count, TextField, Window
from django.db.models.expressions import RawSQL
from django.db.models.functions import RowNumber

from sharding.errors import AcrossShardsRefused
from tests.sharding.orm.reference import DifferentialTestCase, Example
from users.models import Profile

_FIRST = 'Window(RowNumber(), partition_by="profile", order_by="id")'

_LEAST = 'Subquery(A.filter(profile=OuterRef("pk")).order_by("amount").values("amount")[:1])'

_SAME = """
P.filter(display_name="none").aggregate(a=StdDev(Length("bio"), filter=Q(pk__in=[])))
P.aggregate(a=Count("pk", filter=Q(pk__in=[])), b=Sum(Length("bio"), filter=Q(pk__in=[])))
P.none().aggregate(a=Count("pk"), b=Sum(Length("bio"), default=1), c=Max("bio"))
A.aggregate(a=Avg("amount", default=1, filter=Q(kind="none")), b=Sum("amount", default=0))
A.aggregate(a=Coalesce(Sum("amount", filter=Q(kind="none")), 3, output_field=FloatField()))
A.aggregate(a=Sum(Subquery(P.filter(pk=OuterRef("profile")).values(n=Length("bio")))))
P.filter(activities__kind="login").distinct().aggregate(a=Count("pk"), b=Avg(Length("bio")))
P.annotate(n=Count("activities")).filter(n__gt=1).aggregate(Avg("n"), StdDev("n"))
P.values("country").aggregate(Count("pk"))
P.aggregate(a=Count("pk"), b=F("a"))

list(P.values("bio").annotate(n=Sum(Length("plan"), filter=Q(pk__in=[]))).order_by("bio"))
list(P.values("bio", x=Case(When(pk__in=[], then=1))).annotate(n=Count("pk")).order_by("bio"))
list(P.annotate(x=Value("x")).values("x").annotate(n=Count("pk")))
list(P.annotate(x=Value("x")).values("x").distinct())
list(P.filter(pk__in=[]).values("country").annotate(n=Count("pk")))
list(A.values("kind").annotate(n=Count("pk")).order_by("kind").values("n"))
list(A.values("kind").annotate(n=Count("pk")).order_by("kind").values_list("kind", flat=True))
list(A.values("kind").annotate(n=Count("pk")).order_by("n").values_list("n").distinct())
list(A.values_list("kind").annotate(Max("kind")).order_by("kind"))
list(A.values("kind").annotate(n=Count("pk")).order_by("kind")[2:4])
list(A.values(u=F("profile")).annotate(n=Count("kind", distinct=True)).order_by("u"))
list(P.annotate(n=Count("activities")).values("n").annotate(c=Count("pk")).order_by("n"))
list(P.values("activities__profile").annotate(n=Count("pk")).order_by("activities__profile"))
list(P.values("activities__profile").distinct().order_by("-activities__profile"))
sorted(P.values(x={least}).annotate(n=Count("activities")).order_by("x").values("n"), key=repr)
sorted(P.values("bio").annotate(n=Count("activities"), x={least}).values("n", "x"), key=repr)
sorted(P.values("bio").annotate(n=Count("activities")).order_by("plan").values("n"), key=repr)

P.values("bio").distinct().order_by("country").count()
P.order_by("country").values("country").distinct()[1:3].count()
P.filter(activities__kind="login").order_by("activities__amount").distinct()[2:].count()
A.values("kind").annotate(n=Count("profile", distinct=True), m=Max("payload")).count()
A.values("kind").annotate(n=Count("pk")).order_by("amount").count()
A.values("kind").annotate(n=Count("pk"))[3:100].exists()
A.order_by("kind")[190:].count()
A.order_by("kind")[200:].exists()
A.values("kind").annotate(n=Count("pk")).order_by("amount")[5:].exists()
A.order_by("kind", "pk").distinct("kind")[2:].exists()
P.order_by(ExpressionWrapper(Q(pk__in=[]), output_field=BooleanField())).distinct()[3:].exists()

list(P.order_by(NullIf("bio", Value("")), "pk"))
list(P.order_by(ExpressionWrapper(Q(pk__in=[]), output_field=BooleanField()), "pk"))
list(P.annotate(x=Lower("bio")).order_by("x", "pk").values("country").distinct())
list(A.order_by("kind", "kind", "-kind", "pk")[3:19][2:5])
list(A.order_by("created_at__year", "pk"))
list(A.order_by("occurred_at__year", "pk").distinct("occurred_at__year"))
list(A.order_by("profile__country", "-amount", "pk").distinct("profile__country").values("amount"))
list(A.alias(w={first}).filter(w__lt=4).values("profile").distinct().order_by("profile"))
"""

_REFUSED = """
A.alias(w={first}).filter(w=1).values("kind").distinct()
A.alias(w={first}).filter(w=1).order_by("profile__bio")
A.order_by("kind").distinct("kind").annotate(w={first}).filter(w=2)
A.annotate(w={first}).filter(w=2).values("kind").annotate(n=Count("pk"))
A.values("kind").annotate(n=Count("pk")).filter(n__gt=2)
A.values("kind").annotate(n=Count("pk")).order_by("kind").distinct("kind")
A.values("kind").annotate(n=Count("profile__bio", distinct=True))
A.values("kind").annotate(n=Sum("amount") * 2)
A.values("kind").annotate(n=Coalesce(Sum(Length("kind")), 1, 2))
A.order_by(Value(2).asc())
A.order_by(Case(When(pk__in=[], then=1), default=2))
"""

_REFUSED_NUMBERS = """
A.annotate(w={first}).filter(w=2).values("kind").annotate(n=Count("pk")).count()
A.annotate(w={first}).filter(w=2).values("kind").annotate(n=Count("pk")).exists()
A.aggregate(a=Sum(RawSQL("(SELECT count(*) FROM users_activity)", [], IntegerField())))
P.update(bio=RawSQL("(SELECT count(*)::text FROM users_profile)", []))
P.update(bio=Concat("bio", RawSQL("(SELECT count(*)::text FROM users_profile)", [])))
"""


class CornerTests(DifferentialTestCase):
    def test_same(self) -> None:
        for code in _lines(_SAME):
            with self.subTest(code):
                self.assert_same_answer(Example(code))
        self.assertFalse(self.refused)
        self.assertEqual(len(self.failed), 1, self.failed)  # a field that is not there

    def test_refused(self) -> None:
        for code in _lines(_REFUSED):
            with self.subTest(code):
                self.refused.clear()
                self.assert_same_answer(Example(f"list({code})"))
                self.assertTrue(self.refused)

    def test_refused_as_numbers(self) -> None:
        for code in _lines(_REFUSED_NUMBERS):
            with self.subTest(code):
                self.refused.clear()
                self.assert_same_answer(Example(code))
                self.assertTrue(self.refused)

    def test_the_models_own_order_is_looked_at(self) -> None:
        for term in (
            RawSQL("display_name", [], output_field=TextField()),
            Window(RowNumber(), order_by="display_name"),
        ):
            ordered = patch.object(Profile._meta, "ordering", [term])
            with self.subTest(term), ordered, self.assertRaises(AcrossShardsRefused):
                list(Profile.objects.across_shards())

    def test_partial_groups_are_not_there_because_a_part_of_them_is(self) -> None:
        groups = self.sharded["A"].values("kind").annotate(n=Count("pk"))
        with self.assertRaises(AcrossShardsRefused):
            groups.filter(n__lt=2).exists()


def _lines(text: str) -> list[str]:
    filled = text.replace("{first}", _FIRST).replace("{least}", _LEAST)
    return [line for line in filled.splitlines() if line]
