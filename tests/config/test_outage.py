"""Under a steady load each server is killed and restarted: who does not need it notices nothing.

With SOAK=1 every server in turn, longer, and the 99th percentile is held to three times the calm
one. On a busy machine a short run measures that machine, so there the bound is what a wait for a
dead server would cost. The site has the rights of docs/roles.sql, and no others.
"""

import json
import os
import time
from functools import partial
from io import StringIO
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.db import ProgrammingError, connections
from django.test import SimpleTestCase
from psycopg.sql import SQL, Identifier

from config.embedded import Cluster
from sharding.server_checks import check_servers
from tests.config.serving import Site, session_of
from tests.load import Load, Probe, percentile
from tests.outage import own_servers, pointed_to
from tests.sharding.ids import ids_on_each_shard
from tests.support import wait_until
from users.models import User
from users.services import create_user

ALIASES = ("default", "analytics", "shard_1", "shard_2", "shard_3")
SOAK = bool(os.environ.get("SOAK"))
KILLED = ALIASES if SOAK else ("default", "shard_2")
SECONDS = 10.0 if SOAK else 1.5  # that a server is down, and of calm
RATE = 60  # requests a second
RECOVERY = 5  # seconds
SLOWER = 3
WAIT = 1.0  # seconds; a connect timeout is 2 or 3, a pool's 5


def give_roles() -> None:
    """Run docs/roles.sql on every database, and let its roles log in."""
    text = (settings.BASE_DIR / "docs" / "roles.sql").read_text()
    for alias in ALIASES:
        with connections[alias].cursor() as cursor:
            cursor.execute(text)
            cursor.execute("ALTER ROLE app LOGIN; ALTER ROLE app_owner LOGIN")


class OutageTests(SimpleTestCase):
    databases = "__all__"
    servers: Cluster

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.servers = cls.enterClassContext(own_servers(*ALIASES))
        cls.addClassCleanup(connections.close_all)
        give_roles()
        with pointed_to({alias: {"USER": "app_owner"} for alias in ALIASES}):
            call_command("migrate", verbosity=0)
        give_roles()
        cls.enterClassContext(pointed_to({alias: {"USER": "app"} for alias in ALIASES}))

    def setUp(self) -> None:
        self.users = ids_on_each_shard()
        for alias, user_id in self.users.items():
            user = create_user(email=f"{alias}@example.com", id=user_id)
        User.objects.filter(pk=user.pk).update(is_staff=True, is_superuser=True)
        call_command("sync_analytics", progress=False, stdout=StringIO())
        cookie = f"{settings.SESSION_COOKIE_NAME}={session_of(user)}"
        env: dict[str, Any] = {
            "DJANGO_SETTINGS_MODULE": "tests.config.outage_settings",
            "WEB_CONCURRENCY": "2",
        }
        env |= {"SECRET_KEY": settings.SECRET_KEY, "API_RATE_USER": "off"}
        self.site = Site(self, f"outage-{os.getpid()}", **env)
        self.probes = [*self.make_probes(cookie)]

    def make_probes(self, cookie: str) -> list[Probe]:
        def answered(path: str, **headers: Any) -> bool:
            answer = self.site.get(path, **headers)
            return answer is not None and answer.status == 200

        def probe(path: str, *needs: str) -> Probe:
            groups = tuple(frozenset(need.split("|")) for need in needs)
            return Probe(path, partial(answered, path, Cookie=cookie), groups)

        return [
            probe("/healthz"),
            probe("/outage/users", "default|analytics"),
            probe("/admin/password_change/", "default"),
            # Who is known to the process need not be looked up on the primary.
            probe("/api/analytics/summary", "analytics"),
            *(probe(f"/outage/profiles/{key}", alias) for alias, key in self.users.items()),
            *(
                probe(f"/api/users/{key}", "default|analytics", alias)
                for alias, key in self.users.items()
            ),
        ]

    def assertNoMoreRights(self) -> None:
        """The role of the site can run the checks, and can neither make tables nor drop them."""
        self.assertEqual(check_servers(ALIASES), [])
        for alias in ALIASES:
            with connections[alias].cursor() as cursor:
                cursor.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
                tables = [SQL("DROP TABLE {}").format(Identifier(name)) for (name,) in cursor]
                self.assertTrue(tables)
                for statement in (*tables, SQL("CREATE TABLE mine ()"), SQL("CREATE ROLE mine")):
                    with self.assertRaisesRegex(ProgrammingError, "denied|must be owner"):
                        cursor.execute(statement)

    def test_each_server_is_killed_and_restarted(self) -> None:
        self.assertNoMoreRights()
        for probe in self.probes * 2:
            self.assertTrue(probe.send(), probe.name)  # also warms up what is read once
        with Load(self.probes, rate=RATE) as load:
            calm = self.calm(load)
            for alias in KILLED:  # no subTest: what this test has cannot be pickled
                self.outage(load, alias, calm)
        self.assertGreater(len(load.sent), 0.5 * RATE * SECONDS * len(KILLED))
        self.assertEqual(self.site.stop(), 0)

    def calm(self, load: Load) -> float:
        """Return the usual 99th percentile."""
        start = time.monotonic()
        time.sleep(SECONDS)
        sent = load.between(start, time.monotonic())
        self.assertEqual([each.probe.name for each in sent if not each.answered], [])
        return percentile([each.seconds for each in sent], 0.99)

    def outage(self, load: Load, alias: str, calm: float) -> None:
        start = time.monotonic()
        self.servers.kill(alias)
        killed = time.monotonic()
        time.sleep(SECONDS)
        if alias == "default":
            self.assertEqual(self.source(), "analytics")
        before = time.monotonic()
        self.servers.start(alias)
        recovery = self.recovery(alias)
        sent = load.between(start, before)
        living = [each for each in sent if each.probe.works_without(alias)]
        self.assertEqual([each.probe.name for each in living if not each.answered], [], alias)
        slowest = percentile([each.seconds for each in living], 0.99)
        if SOAK:
            print(
                f"{alias} down: {len(living)} requests of others, none failed; 99th percentile"
                f" {slowest * 1000:.0f} ms, calm {calm * 1000:.0f} ms; again in {recovery:.2f} s"
            )
        self.assertLess(slowest, SLOWER * calm if SOAK else max(SLOWER * calm, WAIT), alias)
        # Without these the test would show nothing.
        down = [e for e in sent if e.at > killed and e.at + e.seconds < before]
        needing = [e for e in down if not e.probe.works_without(alias)]
        self.assertTrue(needing)
        self.assertFalse(any(each.answered for each in needing))

    def recovery(self, alias: str) -> float:
        """Return how soon every worker answers everything again, and from where it belongs."""

        def is_back() -> bool:
            # So often that both workers are asked.
            sources = {self.source() for _ in range(12)}
            return sources == {"default"} and all(probe.send() for probe in self.probes * 3)

        started = time.monotonic()
        wait_until(is_back, f"{alias} to be used")
        seconds = time.monotonic() - started
        if SOAK:  # alone on the machine; else that it comes back at all
            self.assertLess(seconds, RECOVERY, alias)
        return seconds

    def source(self) -> str:
        answer = self.site.get("/outage/users")
        assert answer
        return str(json.loads(answer.text)["source"])
