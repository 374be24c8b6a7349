"""User ids by the shard that owns them."""

from uuid import UUID, uuid4

from sharding import conf, get_shard_for_user_id

__all__ = ["id_on", "ids_on_each_shard"]


def id_on(alias: str) -> UUID:
    """A new id that a shard owns."""
    while get_shard_for_user_id(user_id := uuid4()) != alias:
        pass
    return user_id


def ids_on_each_shard() -> dict[str, UUID]:
    """Alias -> a new id, for every shard."""
    return {alias: id_on(alias) for alias in conf.shards()}
