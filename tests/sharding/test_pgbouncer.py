"""Everything that matters, through a PgBouncer in transaction mode in front of every database."""

import os
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC
from decimal import Decimal
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

from django.conf import settings
from django.core.management import call_command
from django.db import IntegrityError, connections, transaction
from django.db.models import Count, Max
from django.test import SimpleTestCase

import sharding
from analytics.sync.lock import only_sync
from sharding import slot_cache
from sharding.errors import DatabaseUnavailable
from sharding.moves.prechecks import problems
from sharding.server_checks import check_servers
from tests.analytics import test_sync_command
from tests.analytics.sync.support import clear
from tests.config.serving import Site, session_of
from tests.outage import own_servers, pointed_to
from tests.pgbouncer import ThroughPgBouncer, pgbouncer, require_pgbouncer
from tests.sharding.ids import id_on, ids_on_each_shard
from tests.support import wait_until
from users.models import Activity, Profile, User
from users.services import create_user, delete_user, get_user_from_shard, update_user

ALIASES = ("default", "analytics", "shard_1", "shard_2", "shard_3")


class PooledTestCase(ThroughPgBouncer, SimpleTestCase):
    """Commits what it does: inside a test's transaction all would run on one connection."""

    databases = "__all__"

    def setUp(self) -> None:
        clear(ALIASES)
        self.addCleanup(clear, ALIASES)
        self.users = [
            create_user(email=f"{alias}@example.com", id=id_on(alias), profile={"plan": "pro"})
            for alias in ids_on_each_shard()
        ]


class SessionTests(PooledTestCase):
    def process(self, alias: str) -> int:
        with connections[alias].cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            return int(cursor.fetchone()[0])

    def test_each_transaction_gets_another_one(self) -> None:
        """Or the tests below would show nothing."""
        for alias in ALIASES:
            self.assertGreater(len({self.process(alias) for _ in range(8)}), 1)
            with transaction.atomic(using=alias):
                self.assertEqual(len({self.process(alias) for _ in range(8)}), 1)

    def test_settings_hold(self) -> None:
        for _ in range(8):
            with connections["shard_1"].cursor() as cursor:
                cursor.execute("SELECT current_setting('TimeZone'), now()")
                zone, now = cursor.fetchone()
            self.assertEqual((zone, now.tzinfo), ("UTC", UTC))

    def test_the_check_knows(self) -> None:
        self.assertEqual(check_servers(ALIASES), [])


class UnmarkedTests(SimpleTestCase):
    databases = "__all__"

    def test_without_the_parameter_the_check_refuses(self) -> None:
        require_pgbouncer()
        with pgbouncer(marked=False):
            found = check_servers(ALIASES)
        self.assertEqual([message.id for message in found], ["sharding.E031"] * len(ALIASES))
        self.assertIn("primary is reached through a pooler", found[0].msg)
        self.assertIn("pgbouncer=true", str(found[0].hint))


class MoveTests(SimpleTestCase):
    databases = "__all__"

    def test_slots_do_not_move_through_it(self) -> None:
        slots = slot_cache.renew().slots("shard_1")
        with pointed_to({"shard_3": {"DISABLE_SERVER_SIDE_CURSORS": True}}):
            (problem,) = problems("shard_1", "shard_2", slots)
        self.assertIn("shard_3 is reached through PgBouncer (pgbouncer=true)", problem)


class OutageTests(SimpleTestCase):
    """The server behind PgBouncer is killed; PgBouncer itself goes on."""

    databases = "__all__"

    def ask(self) -> int:
        try:
            with connections["shard_1"].cursor() as cursor:
                cursor.execute("SELECT 1")
                return int(cursor.fetchone()[0])
        finally:
            connections["shard_1"].close()

    def is_back(self) -> bool:
        try:
            return self.ask() == 1
        except DatabaseUnavailable:
            return False

    def test_killed_and_restarted(self) -> None:
        require_pgbouncer()
        with own_servers("shard_1") as servers, pgbouncer():
            self.assertEqual(self.ask(), 1)
            servers.kill("shard_1")
            with self.assertRaisesRegex(DatabaseUnavailable, "shard_1 cannot be reached"):
                self.ask()
            servers.start("shard_1")
            wait_until(self.is_back, "the server to be used again")
            self.assertEqual([self.ask() for _ in range(8)], [1] * 8)


class OrmTests(PooledTestCase):
    def test_one_user(self) -> None:
        user = self.users[0]
        update_user(user.id, name="Ada", profile={"country": "CH"})
        self.assertEqual(User.objects.get(pk=user.pk).name, "Ada")
        profile = get_user_from_shard(user.id)
        assert profile
        self.assertEqual(profile.country, "CH")
        for amount in range(3):
            profile.activities.create(kind="visit", amount=amount)
        self.assertEqual(profile.activities.aggregate(Max("amount"))["amount__max"], 2)
        self.assertTrue(delete_user(user.id))
        self.assertIsNone(get_user_from_shard(user.id))
        self.assertFalse(Activity.objects.filter(profile=user.id).exists())

    def test_over_all_shards(self) -> None:
        everything = Profile.objects.across_shards()
        keys = sorted(user.id for user in self.users)
        self.assertEqual(everything.count(), 3)
        self.assertEqual([p.user_id for p in everything.order_by("user_id")], keys)
        self.assertEqual(
            [p.user_id for p in everything.order_by("user_id").iterator(chunk_size=1)], keys
        )
        self.assertEqual(
            [*everything.values("plan").annotate(n=Count("pk"))], [{"plan": "pro", "n": 3}]
        )
        self.assertEqual(everything.update(bio="new"), 3)
        self.assertEqual(everything.filter(bio="new").delete()[0], 3)

    def test_many_rows(self) -> None:
        Activity.objects.bulk_create(
            Activity(profile_id=user.id, kind="visit", amount=Decimal(n))
            for user in self.users
            for n in range(500)
        )
        rows = Activity.objects.across_shards().order_by("-amount", "pk")
        amounts = [row.amount for row in rows.iterator(chunk_size=100)]
        self.assertEqual((len(amounts), amounts), (1500, sorted(amounts, reverse=True)))
        one = Activity.objects.filter(profile=self.users[0].id)
        self.assertEqual(len([*one.iterator(chunk_size=100)]), 500)

    def test_transactions(self) -> None:
        user = self.users[1]
        with self.assertRaises(ZeroDivisionError), sharding.atomic(user.id):
            Profile.objects.filter(pk=user.id).update(bio="gone")
            raise ZeroDivisionError
        with transaction.atomic(), self.assertRaises(IntegrityError), transaction.atomic():
            User.objects.filter(pk=user.pk).update(email=self.users[0].email)
        with sharding.atomic(user.id):
            profile = Profile.objects.select_for_update().get(pk=user.id)
            self.assertEqual(profile.bio, "")
            rows = Profile.objects.across_shards().order_by("pk")
            self.assertEqual(len([*rows.iterator()]), 3)

    def test_import(self) -> None:
        with TemporaryDirectory() as folder:
            file = Path(folder, "users.csv")
            emails = [f"imported-{n}@example.com" for n in range(200)]
            file.write_text("\n".join(["email,country", *(f"{email},CH" for email in emails)]))
            call_command("import_users", str(file), batch_size=50, stdout=StringIO())
        self.assertEqual(Profile.objects.across_shards().filter(country="CH").count(), 200)


class SyncTests(ThroughPgBouncer, test_sync_command.RunTests):
    """The sync's own tests of a run."""

    # They look at the lock from outside, by a connection with options.
    test_beside_another_sync_it_says_so_and_does_nothing = None  # type: ignore[assignment]
    test_it_lets_go_of_the_lock = None  # type: ignore[assignment]

    def test_beside_another_sync(self) -> None:
        with only_sync(), ThreadPoolExecutor(1) as other:
            self.assertIn("Another sync is running", other.submit(self.run_once).result())

    def run_once(self) -> str:
        try:
            return test_sync_command.run()
        finally:
            connections.close_all()

    def test_a_lock_is_not_left_behind(self) -> None:
        for _ in range(8):
            self.assertNotIn("Another sync", test_sync_command.run())


class ApiTests(PooledTestCase):
    def test_a_user_and_a_report(self) -> None:
        user = self.users[2]
        User.objects.filter(pk=user.pk).update(is_staff=True, is_superuser=True)
        call_command("sync_analytics", progress=False, stdout=StringIO())
        site = Site(self, f"pgbouncer-{os.getpid()}", SECRET_KEY=settings.SECRET_KEY)
        cookie = f"{settings.SESSION_COOKIE_NAME}={session_of(user)}"
        for _ in range(5):
            answer = site.get(f"/api/users/{user.id}", Cookie=cookie)
            assert answer
            self.assertEqual(answer.status, 200, answer.text)
            self.assertIn('"plan":"pro"', answer.text)
            answer = site.get("/api/analytics/summary", Cookie=cookie)
            assert answer
            self.assertEqual(answer.status, 200, answer.text)
        self.assertEqual(site.stop(), 0)
