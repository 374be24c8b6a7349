"""Which forms of a query name its shards, and which do not."""

import copy
import pickle
from collections.abc import Callable
from typing import Any
from unittest import mock
from uuid import UUID

from django.db.models import Count, F, OuterRef, Q, QuerySet, Subquery, Value
from django.db.models.functions import Lower
from django.db.models.query import ModelIterable

from sharding import slot_cache, use_shard
from sharding.errors import ShardKeyRequired
from sharding.slots import SlotMap
from tests.sharding.methods.world import (
    ADA,
    BOB,
    CY,
    DEE,
    EVE,
    FREE_ID,
    OWNERS,
    SHARDS,
    WorldTestCase,
    activity_id,
    plain,
)
from users.models import Activity, Profile

Case = tuple[str, Callable[[Any], "QuerySet[Any]"], set[UUID]]


# Of profiles: what names the query's rows, and the users whose shards it names.
PROFILES: list[Case] = [
    ("a UUID", lambda q: q.filter(user_id=ADA), {ADA}),
    ("text", lambda q: q.filter(user_id=str(ADA)), {ADA}),
    ("text without hyphens", lambda q: q.filter(user_id=BOB.hex.upper()), {BOB}),
    ("a number", lambda q: q.filter(user_id=CY.int), {CY}),
    ("pk", lambda q: q.filter(pk=BOB), {BOB}),
    ("exact", lambda q: q.filter(user_id__exact=BOB), {BOB}),
    ("in a list", lambda q: q.filter(user_id__in=[ADA, BOB]), {ADA, BOB}),
    ("in texts", lambda q: q.filter(pk__in=[str(ADA), str(CY)]), {ADA, CY}),
    ("in a set", lambda q: q.filter(pk__in={ADA, BOB, CY}), {ADA, BOB, CY}),
    ("in a generator", lambda q: q.filter(pk__in=(key for key in (BOB, CY))), {BOB, CY}),
    ("in with None", lambda q: q.filter(pk__in=[None, ADA]), {ADA}),
    ("two of one shard", lambda q: q.filter(pk__in=[ADA, DEE]), {ADA}),
    ("Q", lambda q: q.filter(Q(user_id=BOB)), {BOB}),
    ("Q in Q", lambda q: q.filter(Q(Q(Q(user_id=BOB)), plan="free")), {BOB}),
    ("either key", lambda q: q.filter(Q(user_id=ADA) | Q(user_id=BOB)), {ADA, BOB}),
    (
        "either key, each with more",
        lambda q: q.filter(Q(user_id=ADA, plan="pro") | Q(plan="free", pk__in=[BOB])),
        {ADA, BOB},
    ),
    ("not not a key", lambda q: q.filter(~(~Q(user_id=BOB, plan="free"))), {BOB}),
    ("chained with more", lambda q: q.filter(plan="free").filter(user_id=BOB), {BOB}),
    ("chained keys", lambda q: q.filter(pk__in=[ADA, BOB]).filter(pk__in=[BOB, CY]), {BOB}),
    ("complex_filter", lambda q: q.complex_filter(Q(pk=BOB)), {BOB}),
    ("key and not key", lambda q: q.filter(pk__in=[ADA, BOB]).exclude(pk=ADA), {ADA, BOB}),
    ("key and XOR", lambda q: q.filter(Q(pk=BOB) & (Q(plan="pro") ^ Q(plan="free"))), {BOB}),
    ("key and join", lambda q: q.filter(activities__kind="login", pk=ADA), {ADA}),
    ("joined before", lambda q: q.filter(activities__profile=BOB).filter(pk=ADA), {ADA}),
    ("the key besides F", lambda q: q.filter(user_id=BOB, bio=F("country")), {BOB}),
    ("values", lambda q: q.values("plan").filter(pk=BOB), {BOB}),
    ("annotated", lambda q: q.annotate(low=Lower("plan")).filter(pk=BOB, low="free"), {BOB}),
    ("annotated key", lambda q: q.alias(key=F("user_id")).filter(key=BOB), {BOB}),
    ("after grouping", lambda q: q.annotate(n=Count("activities")).filter(n=2, pk=BOB), {BOB}),
    ("ordered and sliced", lambda q: q.filter(pk=BOB).order_by("plan")[:3], {BOB}),
    ("a deep copy", lambda q: copy.deepcopy(q.filter(pk=BOB)), {BOB}),
    ("or", lambda q: q.filter(pk=ADA) | q.filter(pk=BOB), {ADA, BOB}),
    ("or of one shard", lambda q: q.filter(pk=ADA) | q.filter(pk=DEE), {ADA}),
    ("and", lambda q: q.filter(pk__in=[ADA, BOB]) & q.filter(pk__in=[BOB]), {BOB}),
    ("and of what has no key", lambda q: q.filter(plan="free") & q.filter(pk=BOB), {BOB}),
    ("or of none", lambda q: q.none() | q.filter(pk=BOB), {BOB}),
    ("union of one shard", lambda q: q.filter(pk=ADA).union(q.filter(pk=DEE)), {ADA}),
    ("union of one key", lambda q: q.filter(pk=BOB).union(q.filter(pk=BOB)), {BOB}),
    ("union of none", lambda q: q.none().union(q.filter(pk=BOB)), {BOB}),
    ("intersection", lambda q: q.filter(pk=ADA).intersection(q.filter(pk=ADA)), {ADA}),
    ("difference", lambda q: q.filter(pk=ADA).difference(q.filter(pk=DEE)), {ADA}),
]

# Of activities, whose key is their foreign key to a profile.
ACTIVITIES: list[Case] = [
    ("the foreign key's column", lambda q: q.filter(profile_id=BOB), {BOB}),
    ("the foreign key, a UUID", lambda q: q.filter(profile=BOB), {BOB}),
    ("the foreign key, text", lambda q: q.filter(profile=str(BOB)), {BOB}),
    ("the foreign key, an object", lambda q: q.filter(profile=Profile(user_id=BOB)), {BOB}),
    ("an object's text", lambda q: q.filter(profile=Profile(user_id=str(BOB))), {BOB}),
    ("in objects", lambda q: q.filter(profile__in=[Profile(pk=ADA), Profile(pk=BOB)]), {ADA, BOB}),
    ("through the foreign key", lambda q: q.filter(profile__user_id=BOB), {BOB}),
    ("its pk", lambda q: q.filter(profile__pk=str(BOB)), {BOB}),
    ("its pk in", lambda q: q.filter(profile__pk__in=[ADA, BOB]), {ADA, BOB}),
    ("with a join", lambda q: q.filter(profile__plan="free", profile=BOB), {BOB}),
    ("with select_related", lambda q: q.select_related("profile").filter(profile=BOB), {BOB}),
    ("pk and key", lambda q: q.filter(pk=activity_id(BOB, 0), profile=BOB), {BOB}),
]

# What does not say whose rows it wants.
UNKEYED: list[tuple[str, Callable[[Any], "QuerySet[Any]"]]] = [
    ("nothing", lambda q: q.all()),
    ("another field", lambda q: q.filter(plan="pro")),
    ("not a key", lambda q: q.exclude(user_id=ADA)),
    ("not a key, in Q", lambda q: q.filter(~Q(user_id=ADA))),
    ("not one of some", lambda q: q.exclude(user_id__in=[ADA, BOB])),
    ("a key or something else", lambda q: q.filter(Q(user_id=ADA) | Q(plan="pro"))),
    ("a key or no key", lambda q: q.filter(Q(user_id=ADA) | ~Q(user_id=BOB))),
    ("a key xor a key", lambda q: q.filter(Q(user_id=ADA) ^ Q(user_id=BOB))),
    ("an F", lambda q: q.filter(user_id=F("user_id"))),
    ("an F among values", lambda q: q.filter(user_id__in=[ADA, F("user_id")])),
    ("a Value", lambda q: q.filter(user_id=Value(ADA))),
    ("the key of a joined table", lambda q: q.filter(activities__profile=ADA)),
    ("another comparison", lambda q: q.filter(user_id__gte=ADA)),
    ("a joined key or the key", lambda q: q.filter(Q(activities__profile=ADA) | Q(pk=BOB))),
    ("or with everything", lambda q: q.filter(pk=ADA) | q.all()),
    ("or with no key", lambda q: q.filter(pk=ADA) | q.filter(plan="pro")),
]


class KeyTests(WorldTestCase):
    """Each query asks the shards of its keys, each of them once, and answers as one database."""

    def test_of_profiles(self) -> None:
        for name, build, keys in PROFILES:
            with self.subTest(name):
                self.check(build(Profile.objects.all()), build(plain(Profile)), keys)

    def test_of_activities(self) -> None:
        for name, build, keys in ACTIVITIES:
            with self.subTest(name):
                self.check(build(Activity.objects.all()), build(plain(Activity)), keys)

    def check(self, queryset: Any, reference: Any, keys: set[UUID]) -> None:
        expected = list(reference)
        with self.assert_touches(*{OWNERS[key] for key in keys}, times=1):
            rows = list(queryset)
        self.assertCountEqual(rows, expected)

    def test_a_copy(self) -> None:
        with self.assert_touches("shard_2"):  # Django fetches the rows to copy them
            copied = copy.copy(Profile.objects.filter(pk=BOB))
        with self.assert_touches("shard_2"):
            self.assertEqual(copied.filter(plan="free").get().display_name, "Bob")

    def test_a_key_goes_before_across_shards(self) -> None:
        for queryset in (
            Profile.objects.across_shards().filter(pk=BOB),
            Profile.objects.filter(pk=BOB).across_shards(partial=True),
        ):
            with self.assert_touches("shard_2"):
                self.assertEqual(len(queryset), 1)

    def test_a_key_goes_before_use_shard(self) -> None:
        with use_shard("shard_1"), self.assert_touches("shard_2"):
            self.assertEqual(Profile.objects.get(pk=BOB).display_name, "Bob")

    def test_using_goes_before_a_key(self) -> None:
        with self.assert_touches("shard_3"):
            self.assertFalse(Profile.objects.using("shard_3").filter(pk=BOB).exists())

    def test_across_shards_goes_before_use_shard(self) -> None:
        with use_shard("shard_1"), self.assert_touches(*SHARDS):
            self.assertEqual(Profile.objects.across_shards().count(), 6)

    def test_use_shard_is_for_what_has_no_key(self) -> None:
        with use_shard("shard_3"), self.assert_touches("shard_3"):
            self.assertEqual(Profile.objects.count(), 2)


class KeyInTurnTests(KeyTests):
    in_turn = True


class NoKeyTests(WorldTestCase):
    def test_is_refused_before_anything_is_sent(self) -> None:
        for name, build in UNKEYED:
            refused = self.assertRaisesMessage(ShardKeyRequired, "users.Profile")
            with self.subTest(name), self.assert_touches(), refused:
                list(build(Profile.objects.all()))

    def test_asks_every_shard_where_that_is_allowed(self) -> None:
        for name, build in UNKEYED:
            with self.subTest(name):
                expected = list(build(plain(Profile)))
                with self.assert_touches(*SHARDS, times=1):
                    rows = list(build(Profile.objects.across_shards()))
                self.assertCountEqual(rows, expected)

    def test_a_subquery_is_no_key(self) -> None:
        keys = Profile.objects.filter(pk=OuterRef("pk")).values("pk")
        for name, queryset in (
            ("in", Profile.objects.filter(pk__in=Profile.objects.filter(pk=ADA).values("pk"))),
            ("equal", Profile.objects.filter(pk=Subquery(keys))),
        ):
            with self.subTest(name), self.assert_touches(), self.assertRaises(ShardKeyRequired):
                list(queryset)

    def test_the_message_says_what_to_write(self) -> None:
        with self.assertRaisesMessage(ShardKeyRequired, "Profile.objects.across_shards()"):
            Profile.objects.count()
        with self.assertRaisesMessage(ShardKeyRequired, "Add a filter on profile"):
            Activity.objects.get(pk=activity_id(ADA, 0))

    def test_a_text_that_is_no_key_is_djangos_error(self) -> None:
        with self.assert_touches(), self.assertRaisesMessage(Exception, "not a valid UUID"):
            Profile.objects.get(user_id="ada")


class NothingTests(WorldTestCase):
    """Queries that cannot have rows send none."""

    def test_nothing_is_sent(self) -> None:
        for name, queryset in (
            ("none", Profile.objects.none()),
            ("none across", Profile.objects.across_shards().none()),
            ("none of a key", Profile.objects.filter(pk=ADA).none()),
            ("in an empty list", Profile.objects.filter(pk__in=[])),
            ("in an empty list, across", Profile.objects.across_shards().filter(pk__in=[])),
            ("another field in an empty list", Profile.objects.filter(pk=ADA, plan__in=[])),
            ("across", Profile.objects.across_shards().filter(plan__in=[])),
            ("only None", Profile.objects.filter(pk__in=[None])),
            ("activities", Activity.objects.filter(profile__in=[])),
            ("union", Profile.objects.none().union(Profile.objects.none())),
        ):
            with self.subTest(name), self.assert_touches():
                self.assertEqual(list(queryset), [])
                self.assertEqual(queryset.count(), 0)
                self.assertFalse(queryset.exists())
                self.assertIsNone(queryset.first())
                self.assertEqual(list(queryset.iterator()), [])

    def test_updates_and_deletes_send_nothing(self) -> None:
        for queryset in (Profile.objects.none(), Profile.objects.filter(pk__in=[])):
            with self.assert_touches():
                self.assertEqual(queryset.update(plan="pro"), 0)
                self.assertEqual(queryset.delete()[0], 0)

    def test_two_keys_at_once(self) -> None:
        self.assertEqual(list(Profile.objects.filter(pk=ADA).filter(pk=BOB)), [])

    def test_aggregate(self) -> None:
        with self.assert_touches():
            self.assertEqual(Profile.objects.none().aggregate(n=Count("pk")), {"n": 0})


class PickleTests(WorldTestCase):
    def test_rows_of_several_shards(self) -> None:
        queryset = Profile.objects.across_shards().order_by("created_at")
        copied = pickle.loads(pickle.dumps(queryset))
        with self.assert_touches():
            self.assertEqual(
                [row.display_name for row in copied], ["Dee", "Fay", "Bob", "Cy", "Ada", "Eve"]
            )
        self.assertEqual({row._state.db for row in copied}, set(SHARDS))

    def test_a_pickled_queryset_asks_the_same_shards(self) -> None:
        for queryset, shards in (
            (Profile.objects.across_shards(), SHARDS),
            (Profile.objects.filter(pk__in=[ADA, BOB]), ("shard_1", "shard_2")),
            (Profile.objects.filter(pk=EVE), ("shard_2",)),
        ):
            copied = pickle.loads(pickle.dumps(queryset)).all()
            with self.assert_touches(*shards):
                self.assertEqual(copied.count(), queryset.count())

    def test_a_pickled_query(self) -> None:
        queryset: QuerySet[Profile] = Profile.objects.all()
        queryset.query = pickle.loads(pickle.dumps(Profile.objects.filter(pk=BOB).query))
        with self.assert_touches("shard_2"):
            self.assertEqual(queryset.get().display_name, "Bob")

    def test_an_object_keeps_its_shard(self) -> None:
        profile = pickle.loads(pickle.dumps(Profile.objects.get(pk=BOB)))
        profile.plan = "team"
        with self.assert_touches("shard_2"):
            profile.save()
        with self.assertRaisesMessage(Exception, "was changed from"):
            profile.user_id = FREE_ID
            profile.save()


class CopyTests(WorldTestCase):
    def test_hints_of_a_related_manager_stay_behind(self) -> None:
        """A clone that shares its hints would take every later query to the first shard."""
        mine: Any = Profile.objects.get(pk=ADA).activities.all()
        theirs = Profile.objects.get(pk=BOB).activities.all()
        self.assertIsNot(mine._hints, mine.all()._hints)
        with self.assert_touches("shard_1", "shard_2", times=1):
            self.assertEqual(len(mine | theirs), 5)

    def test_the_shard_is_asked_each_time(self) -> None:
        """The same queryset, kept, goes where the slot map says now."""
        queryset = Profile.objects.filter(pk=ADA)
        self.assertEqual(queryset.db, "shard_1")
        moved = SlotMap.even(["shard_2", "shard_3", "shard_1"])
        with mock.patch.object(slot_cache, "current", return_value=moved):
            self.assertEqual((queryset.db, queryset.all().db), ("shard_2", "shard_2"))
            self.assertEqual((queryset | Profile.objects.filter(pk=DEE)).db, "shard_2")

    def test_another_thread_may_clone_it_meanwhile(self) -> None:
        """So nothing of the shard may be noted in the queryset, not even for a moment."""
        queryset = Profile.objects.filter(user_id=BOB)
        clones: list[Any] = []

        class Watched(ModelIterable):
            def __iter__(self) -> Any:
                clones.append(queryset.filter(plan="free"))
                yield from super().__iter__()

        queryset._iterable_class = Watched
        self.assertEqual([profile.pk for profile in queryset], [BOB])
        self.assertEqual([clone._db for clone in clones], [None])
