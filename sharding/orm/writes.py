"""Writes that touch several shards, each shard by itself, and writes that would misplace a row."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from django.db import connections, models

from sharding import observing, slot_cache
from sharding.context import current_shard
from sharding.errors import ShardKeyChanged, ShardKeyRequired, SlotMoved, WrongShard
from sharding.following import follow
from sharding.hashing import slot_for
from sharding.orm.hidden import within_slots
from sharding.orm.keys import NO_KEY, key_name
from sharding.orm.scatter import marked_for_rollback, named
from sharding.orm.subqueries import check_values, of_object
from sharding.orm.targets import slots_of

__all__ = [
    "by_shard",
    "each_group",
    "each_shard",
    "key_names",
    "owner_instead",
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
        if key_name(type(instance)):
            check_values(of_object(instance), (owner,))
        if pinned and pinned != owner != owner_instead(pinned, instance.shard_key_value):
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
    if not key_name(type(instance)):
        if alias := pinned or current_shard():
            return alias
        raise ShardKeyRequired(f"{instance._meta.label} was to be stored on no shard. {NO_KEY}")
    raise ShardKeyRequired(
        f"{type(instance)._meta.label} needs a value in its shard key: that decides the shard."
    )


def owner_instead(alias: str, key: Any) -> str:
    """Return the owner in place of a shard that owned the key until a moment ago, else `alias`.

    Whoever named it may have asked the router just before. Raises SlotMoved inside a transaction
    there, which the write would leave.
    """
    if key is None or not slot_cache.formerly_owned(alias, key):
        return alias
    if connections[alias].in_atomic_block:
        raise SlotMoved(
            f"The rows of {key} moved away from {alias} during this transaction. Run it again, as "
            f"sharding.atomic(user_id).run(function) does by itself.",
            alias=alias,
            slot=slot_for(key),
        )
    return slot_cache.get_shard_for_user_id(key)


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


def each_group(
    objects: Iterable[Any], pinned: str | None, write: Callable[[str, list[Any]], _Result]
) -> list[_Result]:
    """Write the objects of each shard, one shard after the other; an error names its shard.

    Those of a slot that moves meanwhile follow it. Outside atomic() the shards before the one that
    failed keep what was written.
    """
    waiting = {id(instance): instance for instance in objects}
    results: list[_Result] = []

    def write_waiting() -> None:
        groups = by_shard(waiting.values(), pinned)
        with marked_for_rollback(groups), observing.fanning_out(len(groups) > 1):
            for alias, group in groups.items():
                with named(alias):
                    results.append(write(alias, group))
                for instance in group:
                    del waiting[id(instance)]

    follow(write_waiting)
    return results


def each_shard(queryset: Any, write: Callable[[Any], _Result]) -> list[_Result]:
    """Write on each shard of a queryset, given it for that shard, one after the other.

    Every slot's rows are written once, on the shard that owns it by then, also while slots move.
    """
    results: list[_Result] = []
    first, waiting = slot_cache.current(), slots_of(queryset)

    def write_next() -> frozenset[int]:
        slot_map = slot_cache.current()
        alias = min(slot_map.owners[slot] for slot in waiting)
        slots = waiting & slot_map.slots(alias)
        there = queryset.using(alias)
        if slot_map.hidden or slot_map.version != first.version:
            there.query = within_slots(there.query, slots)
        with named(alias):
            results.append(write(there))
        return slots

    shards = {first.owners[slot] for slot in waiting}
    while waiting:
        with marked_for_rollback(first.aliases), observing.fanning_out(len(shards) > 1):
            waiting -= follow(write_next)
    return results


def total(deleted: Iterable[tuple[int, Mapping[str, int]]]) -> tuple[int, dict[str, int]]:
    """Add up what delete() returned on each shard."""
    number, per_model = 0, Counter[str]()
    for part, part_per_model in deleted:
        number += part
        per_model.update(part_per_model)
    return number, dict(per_model)
