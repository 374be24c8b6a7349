"""Clients that write at random, for hours, whatever happens to their server."""

import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from threading import Event, Lock, Thread
from typing import Any
from uuid import UUID

import psycopg
from psycopg import errors

from analytics.sync import Source
from tests.analytics.sync.support import connect
from tests.analytics.sync.world import TABLES

__all__ = ["Versions", "Writer"]

_Client = psycopg.Connection[Any]


class Versions:
    """Every version that anybody tried to give a key; whether it was committed is not known."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._known: dict[UUID, set[str]] = {}
        self._last = 0

    def new(self, keys: Sequence[UUID]) -> str:
        """Return a version never used before, for these keys."""
        with self._lock:
            self._last += 1
            version = f"v{self._last}"
            for key in keys:
                self._known.setdefault(key, set()).add(version)
        return version

    def known(self, key: UUID, version: str) -> bool:
        with self._lock:
            return version in self._known.get(key, ())


class Writer:
    """A thread with a client of its own, which it opens again when it was lost."""

    def __init__(self, source: Source, keys: Sequence[UUID], versions: Versions, seed: str) -> None:
        self.source, self.keys, self.versions = source, keys, versions
        self.table = TABLES[source]
        self.dice = random.Random(seed)
        self.transactions = 0
        self.failure: Exception | None = None
        self._stop = Event()
        self._thread = Thread(target=self._run)
        self._thread.start()

    def stop(self) -> None:
        """Let it end after the transaction in hand."""
        self._stop.set()

    def end(self) -> None:
        """Wait until it has. Raises what the thread failed with, if it did."""
        self.stop()
        self._thread.join()
        if self.failure:
            raise self.failure

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                # The server may be down, or go down; another client may hold what this one wants.
                with suppress(psycopg.OperationalError), connect(self.source.alias) as client:
                    client.autocommit = True
                    client.execute("SET lock_timeout = '200ms'")
                    self._write_until_it_fails(client)
        except Exception as error:
            self.failure = error

    def _write_until_it_fails(self, client: _Client) -> None:
        while not self._stop.is_set():
            with suppress(errors.LockNotAvailable, errors.DeadlockDetected, errors.UniqueViolation):
                self.dice.choices(list(_KINDS), list(_KINDS.values()))[0](self, client)
                self.transactions += 1
            self._stop.wait(self.dice.random() * 0.02)

    def store(self, client: _Client) -> None:
        """Insert or update some."""
        keys = self._some()
        change = f"ON CONFLICT ({self.table.key}) DO UPDATE SET {self.table.version} = excluded."
        query = f"{self.table.insert} {change}{self.table.version}"
        client.execute(query, [self.versions.new(keys), keys])

    def delete(self, client: _Client) -> None:
        self._delete(client, self._some())

    def change_id(self, client: _Client) -> None:
        old, new = self.dice.sample(self.keys, 2)
        t, version = self.table, self.versions.new([new])
        query = f"UPDATE {t.name} SET {t.key} = %s, {t.version} = %s WHERE {t.key} = %s"
        client.execute(query, [new, version, old])

    def update_all(self, client: _Client) -> None:
        version = self.versions.new(self.keys)
        client.execute(f"UPDATE {self.table.name} SET {self.table.version} = %s", [version])

    def touch_all(self, client: _Client) -> None:
        """Move rows to other pages, without a word in the log."""
        client.execute(f"UPDATE {self.table.name} SET {self.table.idle} = repeat('x', 120)")

    def merge(self, client: _Client) -> None:
        t, keys = self.table, self._some()
        client.execute(
            f"MERGE INTO {t.name} t USING unnest(%s::uuid[]) AS n(id) ON t.{t.key} = n.id"
            f" WHEN MATCHED AND random() < 0.5 THEN DELETE"
            f" WHEN MATCHED THEN UPDATE SET {t.version} = %s",
            [keys, self.versions.new(keys)],
        )

    def long_transaction(self, client: _Client) -> None:
        """Several statements, some of them taken back, and a late end; committed or not."""
        with client.transaction(force_rollback=self.dice.random() < 0.2):
            for _ in range(self.dice.randrange(1, 4)):
                with client.transaction(force_rollback=self.dice.random() < 0.3):
                    self.dice.choice([Writer.store, Writer.delete])(self, client)
            self._stop.wait(self.dice.random() * 0.3)

    def prepared_transaction(self, client: _Client) -> None:
        """A transaction in two phases; whoever finds it left over ends it."""
        name = f"{self.source.name} {self.dice.getrandbits(64)}"
        client.execute("BEGIN")
        try:
            self.store(client)
        except psycopg.Error:
            client.execute("ROLLBACK")
            raise
        client.execute(f"PREPARE TRANSACTION '{name}'")
        self._stop.wait(self.dice.random() * 0.2)
        ended = "COMMIT" if self.dice.random() < 0.8 else "ROLLBACK"
        client.execute(f"{ended} PREPARED '{name}'")

    def truncate(self, client: _Client) -> None:
        client.execute(f"TRUNCATE {self.table.name} CASCADE")

    def rewrite(self, client: _Client) -> None:
        client.execute(f"VACUUM FULL {self.table.name}")

    def _some(self) -> list[UUID]:
        # Few of many: what is written again soon hides that it was lost.
        return self.dice.sample(self.keys, self.dice.choice([1, 1, 1, 2, 5]))

    def _delete(self, client: _Client, keys: Sequence[UUID]) -> None:
        client.execute(f"DELETE FROM {self.table.name} WHERE {self.table.key} = ANY(%s)", [keys])


_KINDS: dict[Callable[[Writer, _Client], None], int] = {
    Writer.store: 300,
    Writer.delete: 100,
    Writer.change_id: 100,
    Writer.long_transaction: 300,
    Writer.prepared_transaction: 100,
    Writer.merge: 50,
    Writer.touch_all: 10,
    Writer.rewrite: 5,
    Writer.update_all: 2,
    Writer.truncate: 1,
}
