"""Where the slot map is read: from the primary, or while that is down from the shards themselves.

On connections of its own. Django's may be inside a transaction that still sees an older map, or
that has failed; and a test's is watched.
"""

import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from time import monotonic
from typing import Any
from uuid import UUID

import psycopg
from django.db import connections
from psycopg.errors import UndefinedTable

from sharding import conf, unsure
from sharding.backend.base import unavailable
from sharding.errors import DatabaseUnavailable, InvalidSlotMap
from sharding.hashing import SLOTS
from sharding.slots import SlotMap

__all__ = ["MapSource"]

_PAUSE = 5.0  # seconds for which a server that did not answer is not asked again
# A server that vanished must not hold a process for longer.
_TIMEOUTS = {"tcp_user_timeout": 3000, "connect_timeout": 3}

_READ = """
    SELECT c.map_version, c.id,
      (SELECT array_agg(slot ORDER BY slot) FROM sharding_slot),
      (SELECT array_agg(shard ORDER BY slot) FROM sharding_slot),
      (SELECT coalesce(json_agg(json_build_array(
           CASE WHEN state IN ('switched', 'owned') THEN source ELSE target END, slots)), '[]')
       FROM sharding_move WHERE state NOT IN ('cleaned', 'aborted')),
      EXISTS (SELECT FROM sharding_move
        WHERE state IN ('catching up', 'verified', 'fenced', 'moved', 'switched'))
    FROM sharding_cluster c
"""
_ASK_SHARD = """
    SELECT coalesce(array_agg(slot) FILTER (WHERE state <> 'importing'), '{}'),
      coalesce(array_agg(slot) FILTER (WHERE state = 'moved'), '{}'),
      coalesce(array_agg(slot) FILTER (WHERE state = 'importing'), '{}'),
      coalesce(bool_or(move IS NOT NULL), false)
    FROM sharding_slotowner
"""


class MapSource:
    """The connections over which one process reads the map. Not for several threads at once."""

    def __init__(self) -> None:
        self._open: dict[str, tuple[Any, psycopg.Connection[Any]]] = {}
        self._silent: dict[str, float] = {}
        self.cluster: UUID | None = None

    def close(self) -> None:
        """Close the connections, and forget which servers did not answer."""
        for alias in list(self._open):
            self._close(alias)
        self._silent.clear()

    def read(self, known: SlotMap | None = None) -> SlotMap:
        """Return the map as it is now; `known` itself where nothing was changed.

        Raises InvalidSlotMap, and DatabaseUnavailable where not even the shards know it.
        """
        try:
            found = self._from_primary(known)
        except DatabaseUnavailable:
            if (answered := self._from_shards(known)) is None:
                raise
            return answered
        unsure.remember(frozenset())
        return found

    def _from_primary(self, known: SlotMap | None) -> SlotMap:
        if known:
            [version] = self._ask(conf.primary(), "SELECT map_version FROM sharding_cluster") or [0]
            if version == known.version:
                return known
        answer = self._ask(conf.primary(), _READ) or [0] * 6
        version, self.cluster, slots, shards, moves, handing_over = answer
        if not slots:
            raise InvalidSlotMap("The primary holds no slot map yet. Run `manage.py migrate`.")
        hidden: dict[str, frozenset[int]] = defaultdict(frozenset)
        for alias, moving in moves:
            hidden[alias] |= frozenset(moving)
        pairs = zip(slots, shards, strict=True)
        slot_map = SlotMap.from_pairs(
            pairs, version=version, hidden=dict(hidden), handing_over=handing_over
        )
        slot_map.require_known(conf.shards())
        return slot_map

    def _from_shards(self, known: SlotMap | None) -> SlotMap | None:
        """Return the map as the shards that answer know it; None where that is not all of it.

        A slot that one has given up and no other owns yet is still read where it was.
        """
        answers = {}
        for alias in conf.shards():
            try:
                answers[alias] = self._ask(alias, _ASK_SHARD) or ((), (), (), False)
            except (DatabaseUnavailable, InvalidSlotMap):
                continue
        owners: list[str | None] = list(known.owners) if known else [None] * SLOTS
        for settled in (False, True):
            for alias, (owned, moved, *_) in answers.items():
                for slot in set(owned) - set(moved) if settled else moved:
                    owners[slot] = alias
        hidden = dict(known.hidden) if known else {}
        for alias, (_, moved, importing, _) in answers.items():
            elsewhere = {slot for slot in moved if owners[slot] != alias}
            hidden[alias] = frozenset(elsewhere.union(importing))
        if None in owners:
            return None
        unsure.remember(frozenset(conf.shards()) - answers.keys())
        # With the version of the map before, so that the primary is believed again when it is back.
        named = tuple(owner for owner in owners if owner)
        version = known.version if known else 0
        shown = {alias: slots for alias, slots in hidden.items() if slots}
        # They do not tell how far a move is; a shorter life is the safe one.
        handing_over = bool(known and known.handing_over) or any(
            moving for *_, moving in answers.values()
        )
        found = SlotMap(named, version, shown, handing_over)
        return known if found == known else replace(found, version=-1)

    def _ask(self, alias: str, query: str) -> Sequence[Any] | None:
        """Return the one row of a query. Raises DatabaseUnavailable, InvalidSlotMap."""
        if monotonic() - self._silent.get(alias, -_PAUSE) < _PAUSE:
            raise unavailable(alias, reason="it did not answer a moment ago")
        try:
            try:
                return self._connection(alias).execute(query).fetchone()
            except psycopg.OperationalError:
                # The server may have been restarted since.
                self._close(alias)
                return self._connection(alias).execute(query).fetchone()
        except UndefinedTable:
            raise InvalidSlotMap(
                f"Database {conf.label(alias)} holds no slot map yet. Run `manage.py migrate`."
            ) from None
        except psycopg.OperationalError as error:
            self._close(alias)
            self._silent[alias] = monotonic()
            raise unavailable(alias, reason=str(error)) from error

    def _connection(self, alias: str) -> psycopg.Connection[Any]:
        parameters = connections[alias].get_connection_params()
        # A process that was forked must not use its parent's connection.
        place = (os.getpid(), {k: v for k, v in parameters.items() if k != "context"})
        if alias in self._open and self._open[alias][0] == place:
            return self._open[alias][1]
        self._close(alias)
        parameters.pop("cursor_factory")
        parameters.pop("context")
        made = psycopg.connect(**{**parameters, **_TIMEOUTS}, autocommit=True)
        self._open[alias] = place, made
        return made

    def _close(self, alias: str) -> None:
        if found := self._open.pop(alias, None):
            (process, _), connection = found
            if process == os.getpid():
                connection.close()
