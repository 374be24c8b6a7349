"""Writes that touch several shards, each shard by itself, and writes that would misplace a row."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from django.db import models

from sharding import slot_cache
from sharding.errors import ShardKeyChanged, ShardKeyRequired, WrongShard

__all__ = ["by_shard", "key_names", "on_each", "refuse_key"]


def by_shard(objects: Iterable[Any], pinned: str | None) -> dict[str, list[Any]]:
    """Group objects by the shard that owns their key.

    Raises ShardKeyRequired for one without a key, WrongShard when the caller named another shard.
    """
    groups: dict[str, list[Any]] = defaultdict(list)
    for instance in objects:
        name, key = type(instance)._meta.label, instance.shard_key_value
        if key is None:
            raise ShardKeyRequired(
                f"{name} without {instance.shard_key}: its key decides the shard."
            )
        owner = slot_cache.get_shard_for_user_id(key)
        if pinned not in (None, owner):
            raise WrongShard(
                f"{name} with {instance.shard_key}={key} belongs on {owner} and was to be stored "
                f"on {pinned}. Leave out .using(): the objects are sent to their own shards."
            )
        groups[owner].append(instance)
    return groups


def key_names(model: Any) -> set[str]:
    """The names under which update() and its kin could be given a model's shard key."""
    names = {model.shard_key, model.shard_key_attname}
    return names | {"pk"} if model._meta.pk.name == model.shard_key else names


def refuse_key(model: type[models.Model], fields: Iterable[str], method: str) -> None:
    """Refuse to rewrite the key: the row would stay where nobody looks for it."""
    if named := key_names(model) & set(fields):
        raise ShardKeyChanged(
            f"{method} of {model._meta.label} must not set {named.pop()}, its shard key: the row "
            f"would stay on a shard that does not own the new one. Create the row anew and delete "
            f"the old one."
        )


def on_each(
    aliases: Sequence[str], delete: Callable[[str], tuple[int, Mapping[str, int]]]
) -> tuple[int, dict[str, int]]:
    """Run a delete on each shard and sum up what each returned."""
    per_model: Counter[str] = Counter()
    total = 0
    for alias in aliases:
        deleted, models_deleted = delete(alias)
        total += deleted
        per_model.update(models_deleted)
    return total, dict(per_model)
