"""Writes that touch several shards, each shard by itself, and writes that would misplace a row."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from typing import Any, TypeVar

from django.db import models

from sharding import observing, slot_cache
from sharding.errors import ShardKeyChanged, ShardKeyRequired, WrongShard
from sharding.orm.keys import key_name
from sharding.orm.scatter import marked_for_rollback, named

__all__ = [
    "by_shard",
    "key_names",
    "on_each",
    "refuse_key",
    "remember_keys",
    "require_same_keys",
    "total",
]

_Result = TypeVar("_Result")


def by_shard(objects: Iterable[Any], pinned: str | None) -> dict[str, list[Any]]:
    """Group objects by the shard that owns their key.

    Raises ShardKeyRequired for one without a key, WrongShard when the caller named another shard.
    """
    groups: dict[str, list[Any]] = defaultdict(list)
    for instance in objects:
        owner = _owner(instance, pinned)
        if pinned not in (None, owner):
            raise WrongShard(
                f"{type(instance)._meta.label} with {instance.shard_key}="
                f"{instance.shard_key_value} belongs on {owner} and was to be stored on {pinned}. "
                f"Leave out .using(): the objects are sent to their own shards."
            )
        groups[owner].append(instance)
    return groups


def _owner(instance: Any, pinned: str | None) -> str:
    if (key := getattr(instance, "shard_key_value", None)) is not None:
        return slot_cache.get_shard_for_user_id(key)
    if pinned and not key_name(type(instance)):
        return pinned
    raise ShardKeyRequired(
        f"{type(instance)._meta.label} needs a value in its shard key: that decides the shard."
    )


def require_same_keys(model: type[models.Model], objects: Iterable[Any]) -> None:
    """Refuse stored objects whose key was changed: their rows are where the old one says."""
    to_python = _to_python(model)
    for instance in objects:
        stored, key = _stored_key(instance), to_python(instance.shard_key_value)
        if stored not in (None, key) and not instance._state.adding:
            raise ShardKeyChanged(
                f"{key_name(model)} of {model._meta.label} pk={instance.pk} was changed from "
                f"{stored} to {key}. Its row is on the old one's shard. Create a new object with "
                f"the new key, then delete the old one."
            )


def remember_keys(model: type[models.Model], objects: Iterable[Any]) -> None:
    """Note the keys under which the objects are stored now."""
    to_python = _to_python(model)
    for instance in objects:
        instance._state.stored_shard_key = to_python(instance.shard_key_value)


def _stored_key(instance: Any) -> Any:
    return getattr(instance._state, "stored_shard_key", None)


def _to_python(model: Any) -> Callable[[Any], Any]:
    return model._meta.get_field(key_name(model)).to_python


def key_names(model: Any) -> set[str]:
    """Return the names under which methods may be given a model's shard key."""
    if not key_name(model):
        return set()
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


def on_each(aliases: Iterable[str], write: Callable[[str], _Result]) -> list[_Result]:
    """Write to each shard, one after the other; an error names its shard.

    Outside atomic() the shards before that one keep what was written.
    """
    results = []
    aliases = tuple(aliases)
    fan_out = observing.fanning_out() if len(aliases) > 1 else nullcontext()
    with marked_for_rollback(aliases), fan_out:
        for alias in aliases:
            with named(alias):
                results.append(write(alias))
    return results


def total(deleted: Iterable[tuple[int, Mapping[str, int]]]) -> tuple[int, dict[str, int]]:
    """Add up what delete() returned on each shard."""
    number, per_model = 0, Counter[str]()
    for part, part_per_model in deleted:
        number += part
        per_model.update(part_per_model)
    return number, dict(per_model)
