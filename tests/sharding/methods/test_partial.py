"""A shard that is down: an error that names it, or an answer that says what it lacks."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Thread
from typing import Any

import psycopg
from asgiref.sync import async_to_sync
from django.db import close_old_connections, transaction
from django.db.models import Count, Max

from config.embedded import Cluster
from sharding.errors import DatabaseUnavailable
from sharding.orm import comparing
from tests.outage import migrated_servers
from tests.sharding.methods.world import (
    ADA,
    BOB,
    CY,
    CommittedWorldTestCase,
    WorldTestCase,
    sleep_at,
)
from tests.support import server_down, wait_until
from users.models import Profile

DOWN = "shard_2"

# name -> (what reads, what it answers without shard_2)
READS: dict[str, tuple[Callable[[Any], Any], Any]] = {
    "list": (lambda q: [each.display_name for each in q], ["Dee", "Fay", "Cy", "Ada"]),
    "len": (len, 4),
    "bool": (bool, True),
    "values_list": (lambda q: len(q), 4),
    "count": (lambda q: q.count(), 4),
    "exists": (lambda q: q.exists(), True),
    "aggregate": (lambda q: q.aggregate(n=Count("pk"), x=Max("country")), {"n": 4, "x": "FR"}),
    "iterator": (lambda q: len(list(q.iterator())), 4),
    "iterator in chunks": (lambda q: len(list(q.iterator(chunk_size=1))), 4),
}


def everybody(**options: bool) -> Any:
    return Profile.objects.across_shards(**options).order_by("created_at")


class DownTests(WorldTestCase):
    @contextmanager
    def unavailable(self) -> Iterator[None]:
        with self.assertRaises(DatabaseUnavailable) as caught, transaction.atomic("shard_1"):
            yield
        self.assertEqual(caught.exception.alias, DOWN)
        self.assertIn("Database shard_2 cannot be reached", str(caught.exception))

    def test_an_error_names_the_shard(self) -> None:
        calls = {name: read for name, (read, _) in READS.items()} | {
            "get": lambda q: q.get(display_name="Ada"),
            "first": lambda q: q.first(),
            "slice": lambda q: list(q[:2]),
            "in_bulk": lambda q: q.in_bulk(),
            "dates": lambda q: list(q.dates("created_at", "month")),
            "groups": lambda q: list(q.order_by().values("plan").annotate(n=Count("pk"))),
            "update": lambda q: q.update(plan="pro"),
            "explain": lambda q: q.explain(),
        }
        for name, call in calls.items():
            with self.subTest(name), server_down(DOWN), self.unavailable():
                call(everybody())

    def test_the_others_go_on(self) -> None:
        with server_down(DOWN):
            self.assertEqual(Profile.objects.get(pk=ADA).display_name, "Ada")
            self.assertEqual(Profile.objects.filter(pk__in=[ADA, CY]).count(), 2)
            with self.assertRaises(DatabaseUnavailable):
                Profile.objects.get(pk=BOB)
        self.assertEqual(everybody().count(), 6)

    def test_a_partial_answer_says_what_it_lacks(self) -> None:
        for name, (read, expected) in READS.items():
            with self.subTest(name), server_down(DOWN):
                queryset = everybody(partial=True)
                self.assertEqual(queryset.missing_shards, frozenset())
                self.assertEqual(read(queryset), expected)
                self.assertEqual(queryset.missing_shards, {DOWN})

    def test_a_whole_answer_lacks_nothing(self) -> None:
        for name, (read, _) in READS.items():
            with self.subTest(name):
                queryset = everybody(partial=True)
                read(queryset)
                self.assertEqual(queryset.missing_shards, frozenset())

    def test_asked_again(self) -> None:
        queryset = everybody(partial=True)
        with server_down(DOWN):
            self.assertEqual(queryset.count(), 4)
        self.assertEqual(queryset.count(), 6)
        self.assertEqual(queryset.missing_shards, frozenset())

    def test_the_first_question_of_a_process(self) -> None:
        """How the shards sort text is asked once; then, too, one of them may be down."""
        known = dict(comparing._databases)
        self.addCleanup(comparing._databases.update, known)
        comparing._databases.clear()
        with server_down(DOWN):
            names = everybody(partial=True).order_by("display_name")
            self.assertEqual([each.display_name for each in names], ["Ada", "Cy", "Dee", "Fay"])

    def test_a_stream_says_what_it_lacks_with_its_first_row(self) -> None:
        with server_down(DOWN):
            queryset = everybody(partial=True)
            for name, rows in {"merged": queryset, "one by one": queryset.order_by()}.items():
                with self.subTest(name):
                    next(iter(rows.iterator()))
                    self.assertEqual(rows.missing_shards, {DOWN})

    def test_all_are_down(self) -> None:
        with server_down("shard_1"), server_down("shard_2"), server_down("shard_3"):
            queryset = everybody(partial=True)
            self.assertEqual((list(queryset), queryset.count(), queryset.exists()), ([], 0, False))
            self.assertEqual(queryset.aggregate(n=Count("pk"), x=Max("plan")), {"n": 0, "x": None})
            self.assertEqual(queryset.missing_shards, {"shard_1", "shard_2", "shard_3"})

    def test_keys_need_not_be_partial(self) -> None:
        with server_down(DOWN):
            queryset = everybody(partial=True).filter(pk__in=[ADA, BOB])
            self.assertEqual([each.display_name for each in queryset], ["Ada"])
            self.assertEqual(queryset.missing_shards, {DOWN})
            with self.assertRaises(DatabaseUnavailable):
                everybody(partial=True).get(pk=BOB)

    def test_only_reads_may_be_partial(self) -> None:
        for write in (lambda q: q.update(plan="pro"), lambda q: q.delete()):
            with server_down(DOWN), self.unavailable():
                write(everybody(partial=True))

    def test_async(self) -> None:
        async def rows(queryset: Any) -> list[Any]:
            return [each async for each in queryset.aiterator()]

        with server_down(DOWN):
            queryset = everybody(partial=True)
            self.assertEqual(len(async_to_sync(rows)(queryset)), 4)
            self.assertEqual(queryset.missing_shards, {DOWN})
            self.assertEqual(async_to_sync(queryset.acount)(), 4)


class DownInTurnTests(DownTests):
    in_turn = True


class KilledTests(CommittedWorldTestCase):
    """The server dies while it works on the query."""

    servers: Cluster

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.servers = cls.enterClassContext(migrated_servers(DOWN))

    def setUp(self) -> None:
        super().setUp()
        self.servers.start()
        close_old_connections()
        Profile.objects.get_or_create(user_id=BOB)
        self.slow = Profile.objects.annotate(waits=sleep_at(BOB)).order_by("pk")

    def kill_when_asked(self) -> Thread:
        address = self.servers.url(DOWN)

        def kill() -> None:
            with psycopg.connect(address, autocommit=True) as connection:
                query = "SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
                wait_until(lambda: connection.execute(query).rowcount, "the query")
            self.servers.kill(DOWN)

        thread = Thread(target=kill)
        thread.start()
        self.addCleanup(thread.join)
        return thread

    def test_an_error_names_the_shard(self) -> None:
        killed = self.kill_when_asked()
        with self.assertRaises(DatabaseUnavailable) as caught:
            list(self.slow.across_shards())
        killed.join()
        self.assertEqual(caught.exception.alias, DOWN)
        self.assertEqual(Profile.objects.filter(pk__in=[ADA, CY]).count(), 2)

    def test_a_partial_answer(self) -> None:
        for read in (list, lambda q: list(q.iterator())):
            killed = self.kill_when_asked()
            queryset = self.slow.across_shards(partial=True)
            self.assertEqual(len(read(queryset)), 4)
            killed.join()
            self.assertEqual(queryset.missing_shards, {DOWN})
            self.servers.start()
            close_old_connections()

    def test_inside_atomic(self) -> None:
        killed = self.kill_when_asked()
        both = transaction.atomic("shard_1"), transaction.atomic(DOWN)
        with self.assertRaises(DatabaseUnavailable), both[0], both[1]:
            Profile.objects.filter(pk=ADA).update(bio="lost")
            list(self.slow.across_shards())
        killed.join()
        self.assertEqual(Profile.objects.get(pk=ADA).bio, "")
