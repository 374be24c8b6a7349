"""The copies of the accounts, read in place of the primary (see users.fallback)."""

from django.core.cache import cache
from django.db.models import F, Max

from analytics.models import UserAnalytics
from sharding import conf
from users.fallback import UserRow, UsersRead, Wanted

__all__ = ["read_copies"]

_KEY = "analytics.fallback.newest"
_REMEMBERED = 5  # seconds


def read_copies(wanted: Wanted) -> UsersRead:
    """Return accounts by id, and when the newest copy was made. Raises DatabaseUnavailable."""
    fields = [name for name in UserRow.__dataclass_fields__ if name != "id"]
    found = UserAnalytics.objects.filter(**wanted.filters("user_id")).order_by("user_id")
    rows = found.values(*fields, id=F("user_id"))[wanted.rows]
    users = [UserRow(**row) for row in rows]
    # It looks at every copy: once in a while is enough.
    newest = cache.get_or_set(_KEY, _newest, _REMEMBERED)
    return UsersRead(users, source=conf.analytics(), as_of=newest)


def _newest() -> object:
    return UserAnalytics.objects.aggregate(newest=Max("synced_at"))["newest"]
