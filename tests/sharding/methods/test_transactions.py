"""Fan-outs and transactions: what they see, what a failure leaves behind, what they keep open."""

import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from decimal import Decimal
from threading import Thread
from typing import Any, ClassVar
from unittest import skipIf

from django.db import (
    DataError,
    OperationalError,
    ProgrammingError,
    close_old_connections,
    connections,
    transaction,
)
from django.db.models import Count, F, Max, Prefetch
from django.db.transaction import TransactionManagementError

from tests.sharding.methods.wire import watched
from tests.sharding.methods.world import (
    ADA,
    BOB,
    CY,
    FREE_ID,
    SHARDS,
    CommittedWorldTestCase,
    plain,
    sleep_at,
)
from users.models import Activity, Profile

READS: dict[str, Callable[[Any], Any]] = {
    "list": list,
    "first": lambda q: q.first(),
    "count": lambda q: q.count(),
    "exists": lambda q: q.exists(),
    "aggregate": lambda q: q.aggregate(largest=Max("x")),
    "iterator": lambda q: list(q.iterator()),
    "in chunks": lambda q: list(q.iterator(chunk_size=1)),
}

STREAM = Profile.objects.across_shards()


@contextmanager
def open_transactions(*, undo: bool = False) -> Iterator[None]:
    """A transaction on every shard."""
    with ExitStack() as stack:
        for alias in SHARDS:
            stack.enter_context(transaction.atomic(alias))
        yield
        for alias in SHARDS if undo else ():
            transaction.set_rollback(True, using=alias)


@contextmanager
def interrupted(after: float = 0.15) -> Iterator[None]:
    """Press Ctrl-C while the block runs."""

    def press(*args: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, press)
    signal.setitimer(signal.ITIMER_REAL, after)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class TransactionTests(CommittedWorldTestCase):
    """With `in_turn`, something watches the connections (see wire)."""

    in_turn: ClassVar[bool] = False
    many: ClassVar[int] = 1000

    def setUp(self) -> None:
        super().setUp()
        self.addCleanup(signal.signal, signal.SIGALRM, signal.getsignal(signal.SIGALRM))
        if self.in_turn:
            self.enterContext(watched())

    def assert_usable(self) -> None:
        """Fail unless every connection answers at once, and no server works on anything else."""
        for alias in SHARDS:
            with connections[alias].cursor() as cursor:
                cursor.execute(
                    "SELECT count(*) FROM pg_stat_activity"
                    " WHERE wait_event = 'PgSleep' AND datname = current_database()"
                )
                self.assertEqual(cursor.fetchone(), (0,), alias)
        self.assertEqual(Profile.objects.across_shards().count(), 6)

    # What is seen

    def test_uncommitted_rows_are_seen(self) -> None:
        with open_transactions(undo=True):
            Profile.objects.bulk_create([Profile(user_id=FREE_ID, plan="team", bio="new")])
            Profile.objects.across_shards().filter(plan="team").update(bio="new")
            Activity.objects.filter(profile=ADA).delete()
            fresh = Profile.objects.across_shards().filter(bio="new")
            self.assertEqual({each.pk for each in fresh}, {CY, FREE_ID})
            self.assertEqual((fresh.count(), fresh.exists()), (2, True))
            self.assertEqual(len(list(fresh.iterator())), 2)
            self.assertEqual(fresh.aggregate(n=Count("pk")), {"n": 2})
            self.assertEqual(Activity.objects.across_shards().count(), 5)
            self.assertEqual(self.elsewhere(lambda: fresh.all().count()), 0)
        self.assertFalse(fresh.all().exists())

    def elsewhere(self, function: Callable[[], Any]) -> Any:
        """What another thread sees, on connections of its own."""
        results: list[Any] = []

        def run() -> None:
            results.append(function())
            connections.close_all()

        thread = Thread(target=run)
        thread.start()
        thread.join()
        return results[0]

    def test_the_first_statement_of_a_transaction(self) -> None:
        with open_transactions():
            self.assertEqual(Profile.objects.across_shards().count(), 6)
            Profile.objects.across_shards().filter(plan="team").update(bio="new")
            for alias in SHARDS:
                transaction.set_rollback(True, using=alias)
        self.assertFalse(Profile.objects.across_shards().filter(bio="new").exists())

    # An error on one shard

    def failing(self) -> Any:
        """A query that divides by zero in one row, on shard_2."""
        divided = F("amount") / (F("amount") - Decimal("0.75"))  # BOB's login
        return Activity.objects.across_shards().annotate(x=divided).order_by("x")

    def test_an_error_names_its_shard_and_stays_what_it_is(self) -> None:
        reads = {name: read for name, read in READS.items() if name not in ("count", "exists")}
        reads["filtered count"] = lambda q: q.filter(x__gt=0).count()
        reads["filtered exists"] = lambda q: q.filter(x__gt=1000).exists()
        for name, read in reads.items():
            with self.subTest(name), self.assertRaises(DataError) as caught:
                read(self.failing())
            self.assertEqual(str(caught.exception), "shard_2: division by zero")
            self.assertEqual(getattr(caught.exception.__cause__, "sqlstate", None), "22012")
            self.assert_usable()

    def test_inside_transactions_each_shard_is_marked_for_rollback(self) -> None:
        for name in ("list", "aggregate", "iterator"):
            with self.subTest(name), open_transactions():
                Profile.objects.filter(pk=ADA).update(bio="lost")
                with self.assertRaises(DataError):
                    READS[name](self.failing())
                self.assertTrue(all(transaction.get_rollback(using=alias) for alias in SHARDS))
                with self.assertRaises(TransactionManagementError):
                    Profile.objects.across_shards().count()
                with self.assertRaises(TransactionManagementError):
                    Profile.objects.get(pk=ADA)
            self.assertEqual(Profile.objects.get(pk=ADA).bio, "")
            self.assert_usable()

    def test_a_savepoint_on_every_shard_brings_them_back(self) -> None:
        with open_transactions(undo=True):
            Profile.objects.filter(pk=ADA).update(bio="kept")
            for name in ("list", "aggregate", "iterator"):
                with self.subTest(name), self.assertRaises(DataError), open_transactions():
                    READS[name](self.failing())
                self.assertEqual(Profile.objects.across_shards().filter(bio="kept").count(), 1)

    def test_a_refusal_leaves_transactions_alone(self) -> None:
        with open_transactions():
            with self.assertRaisesMessage(Exception, "refused"):
                list(Profile.objects.across_shards().order_by("settings"))
            self.assertFalse(any(transaction.get_rollback(using=alias) for alias in SHARDS))

    def test_a_table_that_is_missing_on_one_shard(self) -> None:
        with open_transactions():
            with connections["shard_3"].cursor() as cursor:
                cursor.execute("ALTER TABLE users_profile RENAME TO elsewhere")
            with self.assertRaisesMessage(ProgrammingError, "shard_3: relation"):
                list(Profile.objects.across_shards())
        self.assert_usable()

    # A query that is cancelled

    def slow(self) -> Any:
        return Profile.objects.across_shards().annotate(x=sleep_at(BOB)).order_by("pk")

    def test_ctrl_c(self) -> None:
        for name in ("list", "aggregate", "iterator"):
            started = time.monotonic()
            with self.subTest(name), self.assertRaises(KeyboardInterrupt), interrupted():
                READS[name](self.slow())
            self.assert_usable()
            self.assertLess(time.monotonic() - started, 5)

    def test_ctrl_c_inside_transactions(self) -> None:
        for name in ("list", "aggregate", "iterator"):
            with self.subTest(name), open_transactions():
                Profile.objects.filter(pk=ADA).update(bio="lost")
                with self.assertRaises(KeyboardInterrupt), interrupted():
                    READS[name](self.slow())
                self.assertTrue(all(transaction.get_rollback(using=alias) for alias in SHARDS))
            self.assert_usable()
            self.assertEqual(Profile.objects.get(pk=ADA).bio, "")

    @skipIf("coverage" in sys.modules, "an interrupt inside of coverage's own lock never ends")
    def test_ctrl_c_while_it_is_sent(self) -> None:
        """At any moment: after so many microseconds, so many more, and so on."""
        queryset = Profile.objects.across_shards().annotate(x=sleep_at(BOB, 0.005))
        list(queryset)
        pressed = 0
        for step in range(40):
            try:
                with interrupted(0.0001 + step * 0.0002):
                    list(queryset.all())
            except KeyboardInterrupt:
                pressed += 1
        self.assertGreater(pressed, 10)
        self.assert_usable()

    def test_a_statement_timeout(self) -> None:
        with connections["shard_2"].cursor() as cursor:
            cursor.execute("SET statement_timeout = 100")
        self.addCleanup(self.reset_timeout)
        for name in ("list", "aggregate"):  # PostgreSQL sets no limit to a cursor WITH HOLD
            with self.subTest(name), self.assertRaises(OperationalError) as caught:
                READS[name](self.slow())
            self.assertIn("shard_2: canceling statement", str(caught.exception))
            self.assert_usable()
        for name in ("list", "aggregate", "iterator"):
            with self.subTest(name), open_transactions():
                with self.assertRaises(OperationalError):
                    READS[name](self.slow())
                self.assertTrue(all(transaction.get_rollback(using=alias) for alias in SHARDS))
            self.assert_usable()

    def reset_timeout(self) -> None:
        with connections["shard_2"].cursor() as cursor:
            cursor.execute("RESET statement_timeout")

    # What stays open

    def test_nothing_is_kept_open(self) -> None:
        self.use_everything(10)
        before = self.pool_statistics()
        self.use_everything(self.many)
        self.assertEqual(self.pool_statistics(), before)

    def use_everything(self, times: int) -> None:
        queryset = Profile.objects.across_shards().order_by("pk")
        for number in range(times):
            if number % 3 == 0:
                next(queryset.iterator(chunk_size=1))  # and the rest is left
            elif number % 3 == 1:
                list(queryset.all())
            else:
                queryset.count()
            if number % 10 == 0:
                close_old_connections()  # as at the end of a request
        close_old_connections()

    def pool_statistics(self) -> dict[str, Any]:
        names = ("connections_num", "pool_size", "pool_available", "requests_errors")
        statistics = {alias: connections[alias].pool.get_stats() for alias in SHARDS}  # type: ignore[attr-defined]
        return {
            alias: {name: each.get(name, 0) for name in names} for alias, each in statistics.items()
        }

    def test_a_stream_that_is_left_closes_its_cursors(self) -> None:
        for name, queryset in {"merged": STREAM.order_by("pk"), "one by one": STREAM}.items():
            with self.subTest(name), open_transactions():
                rows = queryset.iterator(chunk_size=1)
                next(rows)
                del rows
                self.assert_no_cursors()
                self.assertFalse(any(transaction.get_rollback(using=alias) for alias in SHARDS))

    def test_a_prefetch_that_fails_closes_the_streams_cursors(self) -> None:
        """At once: the caller may go back to a savepoint, and the cursors would be gone."""
        newest = Activity.objects.order_by("pk")[:1]  # Django filters it for the first chunk only
        rows = STREAM.prefetch_related(Prefetch("activities", newest)).iterator(chunk_size=1)
        with open_transactions():
            try:
                list(rows)
            except TypeError:
                self.assert_no_cursors()
            else:
                self.fail("Django takes the sliced queryset twice now: find another that fails")

    def assert_no_cursors(self) -> None:
        for alias in SHARDS:
            with connections[alias].cursor() as cursor:
                cursor.execute("SELECT count(*) FROM pg_cursors WHERE name <> ''")
                self.assertEqual(cursor.fetchone(), (0,))

    def test_two_streams_at_once(self) -> None:
        queryset = Profile.objects.across_shards().order_by("pk")
        both = zip(queryset.iterator(chunk_size=1), queryset.iterator(chunk_size=2), strict=True)
        self.assertEqual(len([one for one, other in both if one == other]), 6)

    def test_connections_of_its_own_in_each_thread(self) -> None:
        expected = list(plain(Profile, "shard_1").order_by("pk"))
        found = self.elsewhere(lambda: list(Profile.objects.across_shards().order_by("pk")[:2]))
        self.assertEqual(found, expected)


class TransactionInTurnTests(TransactionTests):
    in_turn = True
    many = 100
