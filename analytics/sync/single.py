"""The sync of one account."""

from typing import Any
from uuid import UUID

from django.db import connections, transaction

from analytics.models import UserAnalytics
from analytics.sync import statements
from analytics.sync.errors import naming
from analytics.sync.result import SyncResult
from sharding import conf
from sharding.hashing import slot_for
from users.models import User

__all__ = ["LOCK", "sync_one", "sync_user"]

LOCK = 19_870_611  # the first half of the lock; the slot is the second


def sync_user(user_id: UUID | str) -> UserAnalytics | None:
    """Copy one account to analytics and return the copy.

    None, and no copy left, when the account is gone. Raises what `sync_one` raises.
    """
    sync_one(user_id)
    return UserAnalytics.objects.filter(pk=user_id).first()


def sync_one(user_id: UUID | str) -> SyncResult:
    """Copy one account to analytics, or delete its copy, and say what changed.

    Raises InvalidShardKey for an id that is no UUID, SyncFailed, DatabaseUnavailable.
    """
    slot = slot_for(user_id)
    alias = conf.analytics()
    with naming(alias), transaction.atomic(using=alias), connections[alias].cursor() as cursor:
        # Before the account is read: of two syncs at once, the one that writes last has read last.
        # A slot is fine enough; other users of it wait for a moment too.
        cursor.execute("SELECT pg_advisory_xact_lock(%s, %s)", [LOCK, slot])
        account = _account(user_id)
        if account is None:
            deleted, _ = UserAnalytics.objects.filter(pk=user_id).delete()
            return SyncResult(deleted=deleted)
        cursor.execute(statements.merge(statements.one_account()), account)
        return SyncResult(upserted=cursor.rowcount, unchanged=1 - cursor.rowcount)


def _account(user_id: UUID | str) -> tuple[Any, ...] | None:
    with naming(conf.primary()):
        return User.objects.filter(pk=user_id).values_list(*statements.FIELDS).first()
