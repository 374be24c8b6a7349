"""Transactions on the shard of one user. Django's own functions ask no router."""

from collections.abc import Callable
from contextlib import ExitStack
from contextvars import ContextVar
from types import TracebackType
from typing import TypeVar
from uuid import UUID

from django.db import transaction

from sharding import conf, slot_cache
from sharding.errors import SlotMoved, WrongShard
from sharding.following import run_again
from sharding.hashing import slot_for
from sharding.slot_cache import get_shard_for_user_id

__all__ = ["atomic", "on_commit", "require_open_shard"]

_Result = TypeVar("_Result")

# The shard of the innermost block, and the user for whom it was opened.
_open_shard: ContextVar[tuple[str, UUID | str] | None] = ContextVar("open_shard", default=None)


class atomic:
    """Run the block in one transaction on the user's shard; give the shard's alias.

    A write to another shard inside the block is refused: the two could not be undone together.
    Raises WrongShard, also for a block inside a block of a user on another shard, and SlotMoved
    when the user moves to another server meanwhile: `atomic(user_id).run(function)` then runs the
    function again as a whole.
    """

    def __init__(
        self, user_id: UUID | str, *, savepoint: bool = True, durable: bool = False
    ) -> None:
        self.user_id, self.savepoint, self.durable = user_id, savepoint, durable
        self._stacks: list[ExitStack] = []

    def __enter__(self) -> str:
        alias = get_shard_for_user_id(self.user_id)
        require_open_shard(alias)
        with ExitStack() as stack:
            block = transaction.atomic(alias, savepoint=self.savepoint, durable=self.durable)
            stack.enter_context(block)
            token = _open_shard.set((alias, self.user_id))
            stack.callback(_open_shard.reset, token)
            self._stacks.append(stack.pop_all())
        return alias

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stacks.pop().__exit__(exc_type, exc_value, traceback)

    def run(self, function: Callable[[], _Result]) -> _Result:
        """Call the function in such a block and return its result; again, from the beginning, when
        the user moves meanwhile, or on a deadlock or serialization failure.
        """

        def once() -> _Result:
            with self:
                return function()

        return run_again(once, alias=lambda: get_shard_for_user_id(self.user_id))


def on_commit(user_id: UUID | str, function: Callable[[], object], *, robust: bool = False) -> None:
    """Call the function once the transaction on the user's shard is committed, or now if none is.

    With `robust`, an error of the function is logged and the others are called all the same.
    """
    transaction.on_commit(function, using=get_shard_for_user_id(user_id), robust=robust)


def require_open_shard(alias: str) -> None:
    """Raise WrongShard when a block of `atomic` is open on another shard than `alias`.

    SlotMoved, where that is because the block's user has moved since.
    """
    if (opened := _open_shard.get()) is None:
        return
    inside, user_id = opened
    if alias == inside or alias not in conf.shards():
        return
    if slot_cache.get_shard_for_user_id(user_id) != inside:
        raise SlotMoved(
            f"The user of this transaction moved from {inside} to another shard. Run it again, as "
            f"sharding.atomic(user_id).run(function) does by itself.",
            alias=inside,
            slot=slot_for(user_id),
        )
    raise WrongShard(
        f"This writes to {alias} inside a transaction on {inside}, and the two could not be "
        f"undone together. Do it before or after the block, or in sharding.on_commit()."
    )
