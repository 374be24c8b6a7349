"""The copies of the accounts, read in place of the primary (see users.fallback)."""

from django.db.models import F, Max

from analytics.models import UserAnalytics
from sharding import conf
from users.fallback import UserRow, UsersRead

__all__ = ["read_copies"]


def read_copies(limit: int, offset: int) -> UsersRead:
    """Return accounts by id, and when the newest copy was made. Raises DatabaseUnavailable."""
    fields = [name for name in UserRow.__dataclass_fields__ if name != "id"]
    rows = UserAnalytics.objects.order_by("user_id").values(*fields, id=F("user_id"))
    users = [UserRow(**row) for row in rows[offset : offset + limit]]
    newest = UserAnalytics.objects.aggregate(newest=Max("synced_at"))["newest"]
    return UsersRead(users, source=conf.analytics(), as_of=newest)
