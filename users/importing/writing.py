"""From a batch to the servers: the accounts to the primary, the profiles to their shards.

A batch is one transaction on the primary. The shards commit inside it: a crash in between leaves
profiles without an account, which nobody sees and the next run replaces, and never an account
without its profile.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any, Literal
from uuid import UUID

from django.conf import settings
from django.contrib.auth.hashers import make_password
from django.db import IntegrityError, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils import timezone
from psycopg.sql import SQL, Identifier

from sharding import slot_cache
from sharding.following import follow
from sharding.hashing import slot_for
from users.importing.errors import Conflict
from users.importing.parallel import at_once
from users.importing.reading import ACCOUNT, PROFILE, Rejected, Row
from users.importing.staging import STAGED, Staging, execute
from users.models import Profile, User

__all__ = ["OnConflict", "Outcome", "Writer"]

OnConflict = Literal["skip", "update", "error"]

_ACCOUNTS = Staging(User, ACCOUNT)
_OF_PROFILE = {"id": "user_id", "date_joined": "created_at"}
_PROFILES = Staging(Profile, [_OF_PROFILE.get(name, name) for name in PROFILE])


@dataclass
class Outcome:
    """What became of a batch's rows: those new, those changed, the rest."""

    created: Sequence[Row]
    updated: list[Row] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    skipped: int = 0


class Writer:
    """Stores batches. `on_conflict` says what to do where an email or id is stored already."""

    def __init__(self, on_conflict: OnConflict) -> None:
        self.on_conflict = on_conflict
        self._all_new = True  # as far as is known

    def write(self, rows: Sequence[Row]) -> Outcome:
        """Store a batch whole. Raises Conflict, and Django's database errors.

        With an error no account of the batch is stored.
        """
        if not rows:
            return Outcome([])
        primary = connections[settings.PRIMARY_DATABASE]
        moment = timezone.now()
        with transaction.atomic(using=primary.alias, durable=True):
            outcome = self._write_accounts(primary, rows, moment)
            # Again as a whole where a slot moves: what is stored already is stored once more.
            follow(lambda: _write_profiles(outcome, moment))
        return outcome

    def _write_accounts(
        self, primary: BaseDatabaseWrapper, rows: Sequence[Row], moment: datetime
    ) -> Outcome:
        with _ACCOUNTS.filled(primary, [row.account for row in rows]):
            known = self._insert(primary, moment)
            wanted = known if self.on_conflict == "update" else ()
            stored = _stored_accounts(primary, wanted) if wanted else {}
        if not known:
            return Outcome(rows)
        outcome = Outcome([row for row in rows if row.id not in known])
        self._resolve([row for row in rows if row.id in known], stored, outcome)
        _update_accounts(primary, outcome.updated, moment)
        return outcome

    def _resolve(self, rows: Sequence[Row], stored: "_Stored", outcome: Outcome) -> None:
        """Decide what becomes of rows whose email or id is stored already. Raises Conflict."""
        if self.on_conflict == "error":
            raise _conflict(rows[0])
        if self.on_conflict == "skip":
            outcome.skipped = len(rows)
        else:
            outcome.updated, outcome.rejected = _targets(rows, stored)

    def _insert(self, primary: BaseDatabaseWrapper, moment: datetime) -> set[str]:
        """Insert the staged accounts; return the ids of those that something stands in the way of.

        Where most are new, an insert that expects no conflict is a third quicker than one that
        does: this one is tried until the first conflict.
        """
        defaults = {
            "password": make_password(None),  # one for the batch: nobody can log in by it
            "date_joined": moment,
            "updated_at": moment,
        }
        if self._all_new:
            try:
                with transaction.atomic(using=primary.alias):
                    _ACCOUNTS.insert(primary, defaults)
                return set()
            except IntegrityError:
                self._all_new = False
        return {str(key) for key in _ACCOUNTS.insert_new(primary, defaults)}


def _conflict(row: Row) -> Conflict:
    return Conflict(
        f"Line {row.line}: an account with its email, {row.email}, or its id is stored already. "
        f"Remove the line, or say --on-conflict skip or update."
    )


_Stored = dict[str, tuple[str | None, str | None]]  # id of a row -> by its id, by its email


def _stored_accounts(primary: BaseDatabaseWrapper, ids: Collection[str]) -> _Stored:
    """Look up whom the staged accounts with these ids stand for."""
    statement = SQL(
        "SELECT staged.{id}, by_id.{id}, by_email.{id} FROM {staged} AS staged "
        "LEFT JOIN {users} AS by_id ON by_id.{id} = staged.{id} "
        "LEFT JOIN {users} AS by_email ON by_email.{email} = staged.{email} "
        "WHERE staged.{id} = ANY(%s::uuid[])"
    ).format(
        id=_ACCOUNTS.key,
        email=Identifier(User._meta.get_field("email").column),
        staged=STAGED,
        users=_ACCOUNTS.table,
    )
    rows = execute(primary, statement, [list(ids)])
    return {str(key): (_text(by_id), _text(by_email)) for key, by_id, by_email in rows}


def _text(key: UUID | None) -> str | None:
    return str(key) if key else None


def _targets(rows: Iterable[Row], stored: _Stored) -> tuple[list[Row], list[Rejected]]:
    """Return the rows to update, as ones about the stored accounts, and those refused."""
    targets: dict[str, Row] = {}
    rejected = []
    for row in rows:
        by_id, by_email = stored[row.id]
        target = by_id or by_email
        if target is None:
            reason = "the account that it stands for was deleted just now: import it again"
        elif by_id and by_email and by_id != by_email:
            reason = "id: is that of one stored account, and the email that of another"
        elif target in targets:
            reason = f"is about the same stored account as line {targets[target].line}"
        else:
            targets[target] = row
            continue
        rejected.append(Rejected(row.line, reason, row.content))
    return [row.about(key) for key, row in targets.items()], rejected


def _update_accounts(
    primary: BaseDatabaseWrapper, updated: Sequence[Row], moment: datetime
) -> None:
    if updated:
        with _ACCOUNTS.filled(primary, [row.account for row in updated]):
            _ACCOUNTS.update(primary, {"updated_at": moment})


def _write_profiles(outcome: Outcome, moment: datetime) -> None:
    """Commit the profiles on their shards, all shards at once."""
    owners = slot_cache.current().owners  # one map for the whole batch
    created: dict[str, list[str]] = defaultdict(list)
    updated: dict[str, list[str]] = defaultdict(list)
    for row in outcome.created:
        created[owners[slot_for(row.id)]].append(row.profile)
    for row in outcome.updated:
        updated[owners[slot_for(row.id)]].append(row.profile)
    at_once(
        {
            alias: partial(_write_shard, created[alias], updated[alias], moment)
            for alias in created.keys() | updated.keys()
        }
    )


def _insert_profiles(shard: BaseDatabaseWrapper, defaults: Mapping[str, Any]) -> None:
    try:
        with transaction.atomic(using=shard.alias):
            _PROFILES.insert(shard, defaults)
    except IntegrityError:
        # One that is there has no account: a run that broke off left it.
        _PROFILES.insert_or_replace(shard, defaults)


def _write_shard(
    created: Sequence[str], updated: Sequence[str], moment: datetime, shard: BaseDatabaseWrapper
) -> None:
    defaults = {"created_at": moment, "updated_at": moment}
    with transaction.atomic(using=shard.alias, durable=True):
        if created:
            with _PROFILES.filled(shard, created):
                _insert_profiles(shard, defaults)
        if updated:
            with _PROFILES.filled(shard, updated):
                _PROFILES.update(shard, {"updated_at": moment})
                _PROFILES.insert_new(shard, defaults)  # an account that lacked its profile
