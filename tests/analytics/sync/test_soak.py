"""Random writers, and syncs and servers that are killed, stopped, paused and restored meanwhile.

With SOAK=1 for SOAK_MINUTES minutes, 30 unless given. What must hold is checked at every quiet
point: after each round the writers and syncs end, and one more sync must make both sides equal.
"""

import logging
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from itertools import count, islice
from pathlib import Path
from threading import Thread
from unittest import mock

from django.db import DatabaseError, OperationalError, transaction

from analytics.sync import Overtaken, SyncFailed, full, sync_source, sync_user
from sharding import get_shard_for_user_id
from tests.analytics.sync import SOAK
from tests.analytics.sync.servers import ServersTestCase
from tests.analytics.sync.soak_app import PAGES
from tests.analytics.sync.support import (
    SHARD,
    USER,
    connect,
    copies,
    execute,
    in_thread,
    key,
    sync,
)
from tests.analytics.sync.writers import Versions, Writer
from tests.outage import disconnect
from tests.support import environment, run_program

MINUTES = float(os.environ.get("SOAK_MINUTES") or 30)
SOURCES = (USER, SHARD)
WRITERS = 3 if SOAK else 2  # of each source
ACTIONS = 8 if SOAK else 3  # of a round


class SoakTests(ServersTestCase):
    aliases = ("default", "analytics", "shard_1")

    def setUp(self) -> None:
        super().setUp()
        self.seed = random.randrange(10**6)
        self.dice = random.Random(self.seed)
        owned = (k for k in map(key, count()) if get_shard_for_user_id(k) == SHARD.alias)
        self.keys = list(islice(owned, 500))
        self.versions = Versions()
        self.saved: dict[str, Path] = {}
        folder = self.enterContext(tempfile.TemporaryDirectory())
        self.output = Path(folder) / "output"
        self.done: Counter[str] = Counter()
        self.enterContext(self.settings(SYNC_LOG_LIMIT=2000))
        self.enterContext(mock.patch.object(full, "_PAGES", PAGES))
        self.indexes = self.names_of_indexes()
        # What it says of connections that were killed.
        logger = logging.getLogger("psycopg.transaction")
        self.enterContext(mock.patch.object(logger, "disabled", True))

    def test_nothing_is_lost_or_invented(self) -> None:
        end = time.monotonic() + 60 * MINUTES
        rounds = 0
        with self.subTest(seed=self.seed):
            while not rounds or (SOAK and time.monotonic() < end):
                rounds += 1
                self.play_round(rounds)
                if SOAK:
                    said = ", ".join(f"{n} {name}" for name, n in sorted(self.done.items()))
                    print(f"Round {rounds}: {said}", file=sys.stderr, flush=True)

    def play_round(self, number: int) -> None:
        """Write, sync and break things; then look."""
        writers = [
            Writer(source, self.keys, self.versions, f"{self.seed} {number} {source.name} {n}")
            for source in SOURCES
            for n in range(WRITERS)
        ]
        self.program = self.follow()
        try:
            for _ in range(ACTIONS):
                # How long is no matter: it makes nothing right or wrong.
                time.sleep(self.dice.random() * 0.5)
                action = self.dice.choices(list(_ACTIONS), list(_ACTIONS.values()))[0]
                action(self)
                self.done[action.__name__.strip("_")] += 1
        finally:
            for writer in writers:
                writer.stop()
            self.end_program(signal.SIGTERM)
        for writer in writers:
            writer.end()
            self.done["transactions"] += writer.transactions
        self.look()

    def look(self) -> None:
        """What must hold when nobody writes."""
        for alias in self.aliases:
            self.revive(alias)
        self.end_prepared()
        for source in SOURCES:
            self.assertNothingLost(source)
            self.assertNothingInvented(source)
            sync(source)
            self.assertEqualSides(source)
        self.assertEqual(self.names_of_indexes(), self.indexes)

    def names_of_indexes(self) -> set[str]:
        query = "SELECT indexname FROM pg_indexes WHERE tablename ~ '^analytics_.*analytics$'"
        return {name for (name,) in execute("analytics", query)}

    def assertNothingInvented(self, source: object) -> None:
        assert source in SOURCES
        for user_id, values in copies(source).items():  # type: ignore[arg-type]
            self.assertTrue(self.versions.known(user_id, values[1]), (user_id, values))

    def end_prepared(self) -> None:
        """Of transactions in two phases those are left whose server was killed or restored."""
        for source in SOURCES:
            with connect(source.alias, autocommit=True) as client:
                for (name,) in client.execute("SELECT gid FROM pg_prepared_xacts").fetchall():
                    ended = self.dice.choice(["COMMIT", "ROLLBACK"])
                    client.execute(f"{ended} PREPARED '{name}'")

    def follow(self) -> subprocess.Popen[str]:
        env = environment("soak") | {
            "DJANGO_SETTINGS_MODULE": "tests.analytics.sync.soak_settings",
            "LOG_FORMAT": "text",
            "PYTHONFAULTHANDLER": "1",
        }
        size = str(self.dice.choice([1, 5, 10_000]))
        arguments = ("sync_analytics", "--follow", "--interval", "0.05", "--batch-size", size)
        with open(self.output, "w") as log:
            program = run_program("manage", *arguments, env=env, output=log)
        self.addCleanup(program.communicate)
        self.addCleanup(program.kill)
        return program

    def end_program(self, number: signal.Signals) -> None:
        self.program.send_signal(number)
        try:
            self.program.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            waiting = [
                execute(
                    alias,
                    "SELECT pid, state, wait_event, pg_blocking_pids(pid), left(query, 200)"
                    " FROM pg_stat_activity WHERE application_name <> ''",
                )
                for alias in self.aliases
            ]
            self.program.send_signal(signal.SIGABRT)
            self.program.communicate(timeout=60)
            self.fail(f"It does not end. {waiting}\n{self.output.read_text()[-9000:]}")

    # What may happen

    def kill_the_sync(self) -> None:
        self.end_program(signal.SIGKILL)
        self.program = self.follow()

    def stop_the_sync(self) -> None:
        self.end_program(signal.SIGTERM)
        self.program = self.follow()

    def pause_the_sync(self) -> None:
        """Others take over meanwhile."""
        self.program.send_signal(signal.SIGSTOP)
        others = self._start_others()
        for other in others:
            other.join(timeout=1)  # longer where the one that is paused holds a lock
        self.program.send_signal(signal.SIGCONT)
        for other in others:
            other.join()

    def others_sync(self) -> None:
        """Two others at once, beside the one that follows, whole or for one batch or user."""
        for other in self._start_others():
            other.join()

    def _start_others(self) -> list[Thread]:
        threads = [Thread(target=in_thread, args=[self._other(n)]) for n in range(2)]
        for thread in threads:
            thread.start()
        return threads

    def _other(self, number: int) -> Callable[[], None]:
        source, full = self.dice.choice(SOURCES), self.dice.random() < 0.1
        size, steps = self.dice.choice([1, 3, 100]), self.dice.choice([1, 2, 5, 1000])
        user_id = self.dice.choice(self.keys)

        def work() -> None:
            with suppress(Overtaken, SyncFailed, DatabaseError):
                if number and not full:
                    sync_user(user_id)
                    return
                for step, _ in enumerate(sync_source(source, full=full, batch_size=size)):
                    if step == steps:
                        break

        return work

    def kill_a_server(self) -> None:
        alias = self.dice.choice(self.aliases)
        self.cluster.kill(alias)
        time.sleep(self.dice.random() * 0.3)
        self.revive(alias)

    def end_connections(self) -> None:
        alias = self.dice.choice(self.aliases)
        with connect(alias, autocommit=True) as client:
            client.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = 'soak' AND random() < 0.7"
            )

    def change_synchronous_commit(self) -> None:
        alias = self.dice.choice(self.aliases)
        value = self.dice.choice(["on", "off"])
        execute(alias, f"ALTER SYSTEM SET synchronous_commit = {value}")
        execute(alias, "ALTER SYSTEM SET wal_writer_delay = '10s'")
        execute(alias, "SELECT pg_reload_conf()")

    def forget_the_copies(self) -> None:
        """Somebody sets analytics up anew: the next sync is a first one."""
        with suppress(OperationalError), transaction.atomic("analytics"):  # a deadlock with a sync
            execute("analytics", "TRUNCATE analytics_useranalytics, analytics_profileanalytics")
            # Where one is under way, it alone knows which indexes are missing.
            execute(
                "analytics", "DELETE FROM analytics_synccheckpoint WHERE dropped_indexes IS NULL"
            )

    def save(self) -> None:
        alias = self.dice.choice(self.aliases)
        self.saved[alias] = self.copy(alias)
        disconnect(alias)

    def restore_a_side(self) -> None:
        if not self.saved:
            return self.save()
        alias = self.dice.choice(list(self.saved))
        self.restore(alias, self.saved.pop(alias))
        disconnect(alias)
        return None


_ACTIONS = {
    SoakTests.others_sync: 6,
    SoakTests.kill_the_sync: 3,
    SoakTests.pause_the_sync: 3,
    SoakTests.kill_a_server: 4,
    SoakTests.end_connections: 3,
    SoakTests.stop_the_sync: 1,
    SoakTests.change_synchronous_commit: 1,
    SoakTests.forget_the_copies: 2,
    SoakTests.save: 1,
    SoakTests.restore_a_side: 2,
}
