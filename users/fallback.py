"""Reading accounts while the primary is down, from the copies that another app keeps.

This app does not know who keeps copies: whoever does hands its reader to `register_copies` when
the process starts.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.conf import settings
from django.db import OperationalError

from sharding.signals import fell_back
from users.models import User
from users.primary import ask_primary

__all__ = ["UserRow", "UsersRead", "Wanted", "read_users_with_fallback", "register_copies"]


@dataclass(frozen=True)
class UserRow:
    """An account, the same from either source."""

    id: UUID
    email: str
    name: str
    is_active: bool
    is_staff: bool
    date_joined: datetime
    last_login: datetime | None


@dataclass(frozen=True)
class UsersRead:
    """Accounts in the order of their ids, and the alias of the database they were read from.

    `as_of` says how old copies are: when the newest of them was made. None for the primary, and
    where there are no copies.
    """

    users: list[UserRow]
    source: str
    as_of: datetime | None = None


@dataclass(frozen=True)
class Wanted:
    """Which accounts to read: those that fit every part that is given, by id."""

    limit: int = 100
    offset: int = 0
    user_id: UUID | None = None
    email: str | None = None
    after: UUID | None = None

    def filters(self, key: str) -> dict[str, object]:
        """Return the arguments of filter() for a model whose primary key is called `key`."""
        given = {key: self.user_id, "email": self.email, f"{key}__gt": self.after}
        return {name: value for name, value in given.items() if value is not None}

    @property
    def rows(self) -> slice:
        """The part of the rows that is wanted."""
        return slice(self.offset, self.offset + self.limit)


# Raises OperationalError when it cannot read either.
CopiesReader = Callable[[Wanted], UsersRead]

_read_copies: CopiesReader | None = None


def register_copies(reader: CopiesReader) -> None:
    """Set who reads the copies; the last one registered does."""
    global _read_copies
    _read_copies = reader


def read_users_with_fallback(
    *,
    limit: int = 100,
    offset: int = 0,
    user_id: UUID | None = None,
    email: str | None = None,
    after: UUID | None = None,
) -> UsersRead:
    """Read accounts from the primary or, while it cannot be reached, their copies.

    All that fit: the one with `user_id`, with `email` in any case, with ids above `after`, which is
    how to go on from the last one of a page. Raises OperationalError, of which DatabaseUnavailable
    is one, when neither can be read, and ValueError for a negative limit or offset.
    """
    if limit < 0 or offset < 0:
        raise ValueError(f"limit ({limit}) and offset ({offset}) must not be negative.")
    wanted = Wanted(limit, offset, user_id, email.lower() if email else None, after)
    try:
        return ask_primary(lambda: _read_primary(wanted))
    except OperationalError:
        if _read_copies is None:
            raise
        read = _read_copies(wanted)
    fell_back.send(User, alias=settings.PRIMARY_DATABASE)
    return read


def _read_primary(wanted: Wanted) -> UsersRead:
    alias = settings.PRIMARY_DATABASE
    found = User.objects.using(alias).filter(**wanted.filters("id")).order_by("id")
    rows = found.values(*UserRow.__dataclass_fields__)[wanted.rows]
    return UsersRead([UserRow(**row) for row in rows], source=alias)
