"""The base class of models whose rows live on shards."""

from collections.abc import Collection, Iterable
from contextlib import suppress
from copy import copy
from typing import Any, ClassVar, Self

from django.core.exceptions import FieldDoesNotExist
from django.db import models, router
from django.db.models.signals import class_prepared, post_save, pre_save

from sharding import slot_cache
from sharding.context import use_shard
from sharding.errors import InvalidShardKey, ShardKeyRequired, SlotMoved, WrongShard
from sharding.following import follow
from sharding.hashing import slot_for
from sharding.orm.queryset import ShardedManager
from sharding.orm.subqueries import check_values, of_object
from sharding.orm.writes import key_names, owner_instead, remember_keys, require_same_keys

__all__ = ["ShardedModel"]


class ShardedModel(models.Model):
    """A model whose rows live on the shard that owns their key, the id of the user they belong to.

    `shard_key` names the field that holds it: a UUIDField, or a foreign key to a sharded model
    with the same key.
    """

    shard_key: ClassVar[str] = "user_id"

    objects = ShardedManager()

    class Meta:
        abstract = True

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Store the row; where its slot just moves, on the shard that owns it then."""

        def save() -> None:
            options = {**kwargs}
            if using := kwargs.get("using"):
                options["using"] = owner_instead(using, self.shard_key_value)
            super(ShardedModel, self).save(*args, **options)

        follow(save)

    # The name of the attribute that holds the key's plain value, e.g. profile_id for "profile".
    shard_key_attname: ClassVar[str]

    @property
    def shard_key_value(self) -> Any:
        """The key, or None while it is not set or was not loaded."""
        # Not by attribute access: that would load a deferred key, and so route, and so come here.
        return self.__dict__.get(self.shard_key_attname)

    @classmethod
    def from_db(cls, db: str | None, field_names: Collection[str], values: Collection[Any]) -> Self:
        instance = super().from_db(db, field_names, values)
        # Once for every row that is read: no calls.
        key = instance.__dict__.get(cls.shard_key_attname)
        instance._state.stored_shard_key = key  # type: ignore[attr-defined]
        return instance

    def refresh_from_db(
        self,
        using: str | None = None,
        fields: Iterable[str] | None = None,
        from_queryset: models.QuerySet[Self] | None = None,
    ) -> None:
        using = using or self._shard_of_row()
        names = None if fields is None else {*fields}
        owner = None if names is None or names & key_names(type(self)) else self._cached_owner()
        super().refresh_from_db(using=using, fields=names, from_queryset=from_queryset)
        # Forgotten by Django, because the key is loaded together with any field.
        if owner is not None and owner.shard_key_value == self.shard_key_value:
            _key_field(type(self)).set_cached_value(self, owner)

    def _cached_owner(self) -> Any:
        field = _key_field(type(self))
        return field.get_cached_value(self, default=None) if field.is_relation else None

    def _shard_of_row(self) -> str:
        """Where the row is: a key changed since then only counts as a part of the primary key."""
        stored = getattr(self._state, "stored_shard_key", None)
        if stored is None or _key_field(type(self)) in self._meta.pk_fields:
            return router.db_for_read(type(self), instance=self)
        return slot_cache.get_shard_for_user_id(stored)

    def delete(
        self, using: str | None = None, keep_parents: bool = False
    ) -> tuple[int, dict[str, int]]:
        """Delete the row, and what belongs to it; likewise."""
        require_same_keys(type(self), [self])

        def delete() -> tuple[int, dict[str, int]]:
            where = owner_instead(using, self.shard_key_value) if using else None
            return super(ShardedModel, self).delete(using=where, keep_parents=keep_parents)

        return follow(delete)

    def _get_next_or_previous_by_FIELD(self, *args: Any, **kwargs: Any) -> Self:
        """Django's get_next_by_…(), for which it would ask the shard of this row alone."""
        nowhere: Any = copy(self)
        nowhere._state.db = None
        find: Any = models.Model._get_next_or_previous_by_FIELD  # type: ignore[attr-defined]
        return find(nowhere, *args, **kwargs)

    # Both look on this row's own shard. Without a key there is none: a form may leave the key for
    # the view to set, and save() will look at it. A key that is no UUID is an error of its field.

    def validate_unique(self, exclude: Collection[str] | None = None) -> None:
        if alias := self._own_shard():
            with use_shard(alias):
                super().validate_unique(exclude=exclude)

    def validate_constraints(self, exclude: Collection[str] | None = None) -> None:
        if self._own_shard():
            super().validate_constraints(exclude=exclude)

    def _own_shard(self) -> str | None:
        with suppress(InvalidShardKey):
            return slot_cache.get_shard_for_user_id(self.shard_key_value)
        return None


def _key_field(model: type[ShardedModel]) -> Any:
    return model._meta.get_field(model.shard_key)


def _require_own_shard(
    sender: type[ShardedModel], instance: ShardedModel, using: str, **kwargs: object
) -> None:
    """Refuse to save a row where no keyed query would find it.

    A signal, because loaddata calls Model.save_base past any override.
    """
    key = _key_field(sender).to_python(instance.shard_key_value)
    name = sender._meta.label
    if key is None:
        raise ShardKeyRequired(
            f"{name} without {sender.shard_key} cannot be saved: its key decides the shard. "
            f"Set it first."
        )
    require_same_keys(sender, [instance])
    owner = slot_cache.get_shard_for_user_id(key)
    if using == owner:
        # Loaded before its slot moved; Django compares this to see what deferred fields mean.
        if not instance._state.adding:
            instance._state.db = using
    elif slot_cache.formerly_owned(using, key):
        raise SlotMoved(
            f"{name} with {sender.shard_key}={key} moved from {using} to {owner} just now. Save it "
            f"again.",
            alias=using,
            slot=slot_for(key),
        )
    else:
        raise WrongShard(
            f"{name} with {sender.shard_key}={key} belongs on {owner} and was to be saved on "
            f"{using}. Save it without `using`: the router knows the shard."
        )


def _require_own_rows(
    sender: type[ShardedModel], instance: ShardedModel, using: str, **kwargs: object
) -> None:
    """Refuse to store what a subquery would find among the rows of one shard only."""
    check_values(of_object(instance), (using,))


def _after_save(sender: type[ShardedModel], instance: ShardedModel, **kwargs: object) -> None:
    remember_keys(sender, [instance])


def _prepare(sender: type[models.Model], **kwargs: object) -> None:
    if not issubclass(sender, ShardedModel):
        return
    with suppress(FieldDoesNotExist):  # the check sharding.E003 reports it
        sender.shard_key_attname = _key_field(sender).attname
    # save(), refresh_from_db() and cascades go through the base manager. Not left to Meta: a child
    # with a Meta of its own would lose it. Migrations read original_attrs.
    name = sender._meta.base_manager_name or "objects"
    sender._meta.base_manager_name = sender._meta.original_attrs["base_manager_name"] = name
    sender._meta.__dict__.pop("base_manager", None)
    pre_save.connect(_require_own_shard, sender=sender)
    pre_save.connect(_require_own_rows, sender=sender)
    post_save.connect(_after_save, sender=sender)


class_prepared.connect(_prepare)
