"""The same profiles through SQLAlchemy's horizontal_shard, for comparison. Import after setup."""

import uuid
from datetime import datetime
from typing import Any

from django.db import connections
from sqlalchemy import URL, create_engine
from sqlalchemy.dialects.postgresql import JSONB, UUID
from sqlalchemy.ext.horizontal_shard import ShardedSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, sessionmaker

from sharding import get_shard_for_user_id

ALIASES = ("shard_1", "shard_2", "shard_3")


class Base(DeclarativeBase):
    """The mapping's base."""


class SqlProfile(Base):
    """The table users_profile."""

    __tablename__ = "users_profile"

    user_id: Mapped[uuid.UUID] = mapped_column(UUID, primary_key=True)
    display_name: Mapped[str]
    country: Mapped[str]
    plan: Mapped[str]
    bio: Mapped[str]
    settings: Mapped[Any] = mapped_column(JSONB)
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


def _engine(alias: str) -> Any:
    settings = connections[alias].settings_dict
    query = {"host": settings["HOST"]}
    url = URL.create("postgresql+psycopg", settings["USER"], database=settings["NAME"], query=query)
    # As Django: each statement commits by itself.
    return create_engine(url, pool_size=2, isolation_level="AUTOCOMMIT")


def _by_identity(mapper: Any, key: Any, **kwargs: Any) -> list[str]:
    return [get_shard_for_user_id(key[0])]


Session: Any = sessionmaker(
    class_=ShardedSession,
    shards={alias: _engine(alias) for alias in ALIASES},
    shard_chooser=lambda mapper, instance, clause=None: get_shard_for_user_id(instance.user_id),
    identity_chooser=_by_identity,
    execute_chooser=lambda context: ALIASES,
)
