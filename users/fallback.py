"""Reading accounts while the primary is down, from the copies that another app keeps.

This app does not know who keeps copies: whoever does hands its reader to `register_copies` when
the process starts.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.conf import settings
from django.db import OperationalError

from sharding.signals import fell_back
from users.models import User

__all__ = ["UserRow", "UsersRead", "read_users_with_fallback", "register_copies"]

logger = logging.getLogger(__name__)


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


# Takes limit and offset. Raises OperationalError when it cannot read either.
CopiesReader = Callable[[int, int], UsersRead]

_read_copies: CopiesReader | None = None


def register_copies(reader: CopiesReader) -> None:
    """Set who reads the copies; the last one registered does."""
    global _read_copies
    _read_copies = reader


def read_users_with_fallback(*, limit: int = 100, offset: int = 0) -> UsersRead:
    """Read accounts from the primary or, while it cannot be reached, their copies.

    Raises OperationalError, of which DatabaseUnavailable is one, when neither can be read, and
    ValueError for a negative limit or offset.
    """
    if limit < 0 or offset < 0:
        raise ValueError(f"limit ({limit}) and offset ({offset}) must not be negative.")
    try:
        return _read_primary(limit, offset)
    except OperationalError as error:
        if _read_copies is None:
            raise
        logger.warning("Reading copies of the accounts instead of the primary: %s", error)
        read = _read_copies(limit, offset)
    fell_back.send(User, alias=settings.PRIMARY_DATABASE)
    return read


def _read_primary(limit: int, offset: int) -> UsersRead:
    alias = settings.PRIMARY_DATABASE
    fields = UserRow.__dataclass_fields__
    rows = User.objects.using(alias).order_by("id").values(*fields)[offset : offset + limit]
    return UsersRead([UserRow(**row) for row in rows], source=alias)
