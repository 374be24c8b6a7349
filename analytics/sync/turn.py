"""One batch of the sync, as a claim on both sides: what makes it safe against every crash.

Both sides keep random tokens: the source `claimed` and `applied`, the checkpoint in analytics
`token`. A turn reads rows at the source; claims there, on the same connection, a new token; writes
to analytics, where the same transaction replaces the token; and then finishes at the source: only
now are the log's entries that it read deleted, each by its id. Each step demands that its side is
as the turn found it, so of two turns at once, or of one that slept, only one does anything.
"""

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from django.db.backends.utils import CursorWrapper
from psycopg.sql import SQL, Composed, Identifier
from psycopg.types.json import Jsonb

from analytics.models import SyncCheckpoint, SyncPosition
from analytics.sync.described import Source
from analytics.sync.errors import Overtaken

__all__ = ["Turn", "forget_token", "read_checkpoint", "read_position"]

Token = uuid.UUID | None


@dataclass
class Turn:
    """The tokens of one batch, as they were found, and the new one."""

    source: Source
    token: Token
    claimed: Token
    applied: Token
    reconcile: dict[str, Any] | None
    new: uuid.UUID = field(default_factory=uuid.uuid4)

    @property
    def torn(self) -> bool:
        """Whether the sides do not belong together: one was restored, or changed by hand."""
        return self.token not in (self.claimed, self.applied)

    @property
    def disagreement(self) -> str:
        """Why analytics cannot be trusted to hold what the source says, or nothing."""
        if self.token is None or self.applied is None:
            return "nothing was synced yet"
        if self.reconcile is not None:
            if why := self.reconcile.get("why"):
                return why
            page = self.reconcile.get("page")
            where = f" at page {page} of the table" if page else ""
            return f"the last reconcile was interrupted{where}"
        if self.torn:
            return "one of the sides was restored or changed by hand"
        return ""

    @property
    def unfinished(self) -> dict[str, Any] | None:
        """The reconcile that is still owed after a batch that is no part of one."""
        # Not that of a torn turn: restored, it may be an old one, whose findings are not true now.
        if self.torn or (self.reconcile is None and self.disagreement):
            return {"step": "compare"}
        return self.reconcile

    def claim(self, here: CursorWrapper) -> None:
        """Announce the batch at the source, after it was read there and on the same connection.

        Waits until the claim is on disk: so is then, on this server and on any standby or backup
        that has the claim, all that was read before it. Raises Overtaken.
        """
        here.execute("SET LOCAL synchronous_commit = on")
        if self.claimed is self.applied is None:
            here.execute(_INSERT_POSITION, [self.source.synced.name])
        here.execute(_CLAIM, [self.new, self.source.synced.name, self.claimed, self.applied])
        self._require_row(here)

    def take_over(self, there: CursorWrapper, reconcile: dict[str, Any] | None) -> None:
        """Replace the token in analytics, in the transaction that writes the batch.

        `reconcile` is how far a reconcile is after it. Raises Overtaken.
        """
        state: Any = Jsonb(reconcile) if reconcile is not None else None
        if self.token is None:
            there.execute(_INSERT_CHECKPOINT, [self.source.name])
        values = [self.new, state, self.source.pairs]
        there.execute(_TAKE_OVER, [*values, self.source.name, self.token])
        self._require_row(there)

    def finish(self, here: CursorWrapper, entries: Sequence[int]) -> None:
        """Note at the source that the batch is applied, and delete the log's entries by their ids.

        By id, never by range: a transaction that commits late brings smaller ids than were read.
        Raises Overtaken.
        """
        here.execute(_FINISH, [self.new, self.source.synced.name, self.new, self.applied])
        self._require_row(here)
        delete = SQL("DELETE FROM {} WHERE id = ANY(%s)").format(self.source.log)
        here.execute(delete, [list(entries)])

    def _require_row(self, cursor: CursorWrapper) -> None:
        if cursor.rowcount != 1:
            raise Overtaken(f"Another sync of {self.source.name} was quicker; this one stopped.")


def read_checkpoint(there: CursorWrapper, source: Source) -> tuple[Token, dict[str, Any] | None]:
    """Return the token of analytics, and how far a reconcile is that is not complete."""
    there.execute(_SELECT_CHECKPOINT, [source.name])
    token, reconcile, columns = there.fetchone() or (None, None, "")
    if token is not None and columns != source.pairs:
        return token, {"step": "compare", "why": "other columns are copied than before"}
    # Django's connections hand JSON out as text.
    return token, json.loads(reconcile) if reconcile else None


def forget_token(there: CursorWrapper, source: Source) -> None:
    """Put a token that nobody knows in place of the one in analytics: a reconcile is owed then."""
    there.execute(_FORGET, [uuid.uuid4(), source.name])


def read_position(here: CursorWrapper, source: Source) -> tuple[Token, Token]:
    """Return the tokens of the source: claimed, applied."""
    here.execute(_SELECT_POSITION, [source.synced.name])
    return here.fetchone() or (None, None)


def _sql(model: type[SyncCheckpoint | SyncPosition], text: str) -> Composed:
    return SQL(text).format(table=Identifier(model._meta.db_table))


_SELECT_CHECKPOINT = _sql(
    SyncCheckpoint, "SELECT token, reconcile, columns FROM {table} WHERE source = %s"
)
_INSERT_CHECKPOINT = _sql(
    SyncCheckpoint, "INSERT INTO {table} (source) VALUES (%s) ON CONFLICT DO NOTHING"
)
_TAKE_OVER = _sql(
    SyncCheckpoint,
    "UPDATE {table} SET token = %s, reconcile = %s, columns = %s"
    " WHERE source = %s AND token IS NOT DISTINCT FROM %s",
)
_FORGET = _sql(SyncCheckpoint, "UPDATE {table} SET token = %s WHERE source = %s")
_SELECT_POSITION = _sql(SyncPosition, "SELECT claimed, applied FROM {table} WHERE source = %s")
_INSERT_POSITION = _sql(
    SyncPosition, "INSERT INTO {table} (source) VALUES (%s) ON CONFLICT DO NOTHING"
)
_CLAIM = _sql(
    SyncPosition,
    "UPDATE {table} SET claimed = %s WHERE source = %s"
    " AND claimed IS NOT DISTINCT FROM %s AND applied IS NOT DISTINCT FROM %s",
)
_FINISH = _sql(
    SyncPosition,
    "UPDATE {table} SET applied = %s WHERE source = %s"
    " AND claimed IS NOT DISTINCT FROM %s AND applied IS NOT DISTINCT FROM %s",
)
