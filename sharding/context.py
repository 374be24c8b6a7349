"""Scoped choice of a shard for queries that carry no key."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from sharding import conf
from sharding.errors import ShardingError

__all__ = ["current_shard", "use_shard"]

_shard: ContextVar[str | None] = ContextVar("shard", default=None)


def current_shard() -> str | None:
    """The shard that the innermost `use_shard` block names, if any."""
    return _shard.get()


@contextmanager
def use_shard(alias: str) -> Iterator[None]:
    """Send queries on sharded models that carry no key to one shard, inside this block.

    A key in the query, and `.using()`, go before it. Raises ShardingError for an alias that is
    no shard.
    """
    if alias not in conf.shards():
        raise ShardingError(f"{alias!r} is no shard. The shards are {', '.join(conf.shards())}.")
    token = _shard.set(alias)
    try:
        yield
    finally:
        _shard.reset(token)
