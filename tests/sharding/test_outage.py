"""One server is really killed: what lives elsewhere goes on, the rest fails at once and by name."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Barrier
from unittest import mock

from django.db import close_old_connections, connections, transaction
from django.test import SimpleTestCase
from psycopg_pool.base import AttemptWithBackoff

from analytics.models import SyncRun, UserAnalytics
from config.embedded import Cluster
from sharding import get_shard_for_user_id
from sharding.errors import DatabaseUnavailable
from tests.outage import migrated_servers, pool_options
from tests.sharding.ids import id_on
from users.models import Profile, User
from users.services import create_user, get_user_from_shard, update_user

OWN = ("default", "shard_2")
AT_ONCE = 10  # seconds at most; in fact some thousandths


class OutageTests(SimpleTestCase):
    """The primary and shard_2 on servers of their own; each test may kill one of them."""

    databases = "__all__"
    servers: Cluster

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.servers = cls.enterClassContext(migrated_servers(*OWN))
        # So long that a test fails where the pool's timeout has to end a wait.
        cls.enterClassContext(pool_options(*OWN, timeout=2.0 * AT_ONCE))

    def setUp(self) -> None:
        self.servers.start()
        close_old_connections()
        self.user = create_user(email=f"{self.id()}@example.com", id=id_on("shard_2"))
        self.addCleanup(connections.close_all)

    def kill(self, alias: str) -> None:
        self.servers.kill(alias)
        close_old_connections()  # as between two requests

    def restart(self, alias: str) -> None:
        self.servers.start(alias)
        close_old_connections()

    @contextmanager
    def assertUnavailable(self, alias: str) -> Iterator[None]:
        """Assert that the block fails for this database, and within seconds."""
        started = time.monotonic()
        with self.assertRaises(DatabaseUnavailable) as caught:
            yield
        self.assertLess(time.monotonic() - started, AT_ONCE)
        self.assertEqual(caught.exception.alias, alias)
        name = "primary" if alias == "default" else alias
        self.assertIn(f"Database {name} cannot be reached", str(caught.exception))

    def occupy(self, count: int) -> None:
        """Open that many connections to shard_2 at once, and give them back to the pool."""
        inside = Barrier(count)

        def request(_: int) -> None:
            with connections["shard_2"].cursor():
                inside.wait(timeout=30)
            connections["shard_2"].close()

        connections["shard_2"].close()
        with ThreadPoolExecutor(count) as pool:
            list(pool.map(request, range(count)))

    def largest(self) -> int:
        size: int = connections["shard_2"].settings_dict["OPTIONS"]["pool"]["max_size"]
        return size

    # A shard is down

    def test_the_rest_goes_on(self) -> None:
        self.kill("shard_2")
        self.assertEqual(User.objects.get(pk=self.user.pk), self.user)
        self.assertIsNone(UserAnalytics.objects.filter(pk=self.user.pk).first())
        for alias in ("shard_1", "shard_3"):
            user = create_user(email=f"{alias}-{self.id()}@example.com", id=id_on(alias))
            self.assertIsNotNone(get_user_from_shard(user.id))
            user_id = user.id
            user.delete()
            self.assertIsNone(get_user_from_shard(user_id))

    def test_what_needs_it_fails_at_once_and_by_name(self) -> None:
        self.kill("shard_2")
        before = User.objects.count()
        for action in (
            lambda: get_user_from_shard(self.user.id),
            lambda: Profile.objects.get(user_id=self.user.id),
            lambda: Profile(user_id=self.user.id).save(),
            lambda: create_user(email="new@example.com", id=id_on("shard_2")),
            lambda: update_user(self.user.id, name="Ada", profile={"plan": "pro"}),
            lambda: self.user.delete(),
        ):
            with self.assertUnavailable("shard_2"):
                action()
        self.assertEqual(User.objects.count(), before)
        self.assertEqual(User.objects.get(pk=self.user.pk).name, "")

    def test_many_at_once(self) -> None:
        def request(_: int) -> None:
            try:
                with self.assertUnavailable("shard_2"):
                    get_user_from_shard(self.user.id)
            finally:
                connections.close_all()

        self.occupy(self.largest())
        self.kill("shard_2")
        with ThreadPoolExecutor(8) as pool:
            self.assertEqual([*pool.map(request, range(16))], [None] * 16)

    def test_back_again_in_the_same_process(self) -> None:
        self.kill("shard_2")
        with self.assertUnavailable("shard_2"):
            get_user_from_shard(self.user.id)
        self.restart("shard_2")
        self.assertIsNotNone(get_user_from_shard(self.user.id))
        update_user(self.user.id, profile={"plan": "pro"})
        self.assertEqual(Profile.objects.get(user_id=self.user.id).plan, "pro")

    # Whatever state the outage left the pool in, the first request after it works

    def test_a_restart_that_nobody_noticed(self) -> None:
        self.occupy(self.largest())
        self.servers.kill("shard_2")
        self.restart("shard_2")
        self.assertIsNotNone(get_user_from_shard(self.user.id))

    def test_a_long_outage(self) -> None:
        # psycopg_pool waits ever longer between its own attempts: after some minutes, as here.
        self.enterContext(mock.patch.object(AttemptWithBackoff, "INITIAL_DELAY", 120.0))
        self.occupy(self.largest())
        self.kill("shard_2")
        for _ in range(self.largest() + 1):
            with self.assertUnavailable("shard_2"):
                get_user_from_shard(self.user.id)
            close_old_connections()
        self.restart("shard_2")
        self.occupy(self.largest())
        self.assertIsNotNone(get_user_from_shard(self.user.id))

    def test_in_the_middle_of_a_transaction(self) -> None:
        with self.assertUnavailable("shard_2"), transaction.atomic(using="shard_2"):
            profile = Profile.objects.select_for_update().get(user_id=self.user.id)
            profile.plan = "team"
            profile.save()
            self.servers.kill("shard_2")
            profile.save()
        self.restart("shard_2")
        self.assertEqual(Profile.objects.get(user_id=self.user.id).plan, "free")

    def test_every_connection_was_in_use(self) -> None:
        with pool_options("shard_2", min_size=0, max_size=1):
            get_user_from_shard(self.user.id)
            self.servers.kill("shard_2")
            for _ in range(3):
                with self.assertUnavailable("shard_2"):
                    get_user_from_shard(self.user.id)
                close_old_connections()
            self.restart("shard_2")
            self.assertIsNotNone(get_user_from_shard(self.user.id))

    def test_down_when_the_process_starts(self) -> None:
        self.kill("shard_2")
        connections["shard_2"].close_pool()  # type: ignore[attr-defined]
        with self.assertUnavailable("shard_2"):
            get_user_from_shard(self.user.id)
        self.restart("shard_2")
        self.assertIsNotNone(get_user_from_shard(self.user.id))

    # The primary is down

    def test_the_shards_and_analytics_go_on(self) -> None:
        get_shard_for_user_id(self.user.id)  # in the process's memory from now on
        self.kill("default")
        profile = Profile.objects.get(user_id=self.user.id)
        profile.plan = "pro"
        profile.save()
        self.assertIsNone(SyncRun.objects.first())
        actions: list[Callable[[], object]] = [
            lambda: User.objects.count(),
            lambda: create_user(email="new@example.com"),
            lambda: update_user(self.user.id, profile={"plan": "team"}),
            lambda: self.user.delete(),
        ]
        for action in actions:
            with self.assertUnavailable("default"):
                action()
        self.restart("default")
        self.assertEqual(User.objects.get(pk=self.user.pk), self.user)
        self.assertEqual(Profile.objects.get(user_id=self.user.id).plan, "pro")
