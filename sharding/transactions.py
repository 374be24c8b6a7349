"""Transactions on the shard of one user. Django's own functions ask no router."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from uuid import UUID

from django.db import transaction

from sharding import conf
from sharding.errors import WrongShard
from sharding.slot_cache import get_shard_for_user_id

__all__ = ["atomic", "on_commit", "require_open_shard"]

_open_shard: ContextVar[str | None] = ContextVar("open_shard", default=None)


@contextmanager
def atomic(user_id: UUID | str, *, savepoint: bool = True, durable: bool = False) -> Iterator[str]:
    """Run the block in one transaction on the user's shard; give the shard's alias.

    A write to another shard inside the block is refused: the two could not be undone together.
    Raises WrongShard, also for a block inside a block of a user on another shard.
    """
    alias = get_shard_for_user_id(user_id)
    require_open_shard(alias)
    with transaction.atomic(using=alias, savepoint=savepoint, durable=durable):
        token = _open_shard.set(alias)
        try:
            yield alias
        finally:
            _open_shard.reset(token)


def on_commit(user_id: UUID | str, function: Callable[[], object], *, robust: bool = False) -> None:
    """Call the function once the transaction on the user's shard is committed, or now if none is.

    With `robust`, an error of the function is logged and the others are called all the same.
    """
    transaction.on_commit(function, using=get_shard_for_user_id(user_id), robust=robust)


def require_open_shard(alias: str) -> None:
    """Raise WrongShard when a block of `atomic` is open on another shard than `alias`."""
    inside = _open_shard.get()
    if inside not in (None, alias) and alias in conf.shards():
        raise WrongShard(
            f"This writes to {alias} inside a transaction on {inside}, and the two could not be "
            f"undone together. Do it before or after the block, or in sharding.on_commit()."
        )
