"""Writing and reading accounts together with what they own, in the order that loses nothing.

Accounts and profiles stand on different servers, so no transaction spans both. Creating commits the
shard first and deleting commits the primary first: a crash between leaves rows on a shard without
an account, which nobody sees, and never an account without its profile.
"""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models.signals import post_delete, pre_delete
from django.dispatch import receiver

from sharding import get_shard_for_user_id
from users.fallback import read_users_with_fallback
from users.models import Profile, User

__all__ = [
    "create_user",
    "delete_user",
    "get_user_from_shard",
    "read_users_with_fallback",
    "update_user",
]


def create_user(
    *,
    email: str,
    password: str | None = None,
    profile: Mapping[str, Any] | None = None,
    **account: Any,
) -> User:
    """Store an account with its profile and return it.

    `account` and `profile` hold field values. Raises ValidationError, with nothing stored, and
    DatabaseUnavailable, with no account stored.
    """
    user = User(email=email, **account)
    owned = Profile(user_id=user.id, **profile or {})
    user.set_password(password)
    user.full_clean()
    owned.full_clean(validate_unique=False)  # only a try that failed can have left one
    user.save(profile=owned)
    return user


def update_user(
    user_id: UUID | str, *, profile: Mapping[str, Any] | None = None, **account: Any
) -> User:
    """Change fields of an account and of its profile, and return the account.

    The profile is committed first; should the primary fail just then, the profile alone is
    changed and the error is raised: call again. Raises User.DoesNotExist, ValidationError,
    DatabaseUnavailable.
    """
    with transaction.atomic(using=settings.PRIMARY_DATABASE):
        user = User.objects.select_for_update().get(pk=user_id)
        if "password" in account:
            user.set_password(account["password"])
            account["password"] = user.password
        if account:
            _change(user, account)
        if profile:
            _change(Profile.objects.get(user_id=user.id), profile)
    return user


def delete_user(user_id: UUID | str) -> bool:
    """Delete an account and all that it owns; say whether there was one.

    With the user's shard down nothing is deleted and DatabaseUnavailable is raised. Called again
    after a failure, it deletes what is left on the shard. Raises RuntimeError inside a transaction
    on the primary: undone, it would leave an account whose profile is gone.
    """
    with transaction.atomic(using=settings.PRIMARY_DATABASE, durable=True):
        user = User.objects.select_for_update().filter(pk=user_id).first()
        if user:
            user.delete()
    _delete_owned(user_id)
    return user is not None


def get_user_from_shard(user_id: UUID | str) -> Profile | None:
    """Return a user's profile from the shard that owns it, or None.

    Raises InvalidShardKey for an id that is no UUID, DatabaseUnavailable.
    """
    shard = get_shard_for_user_id(user_id)
    return Profile.objects.using(shard).filter(pk=user_id).first()


# By signals, so that the admin's and a queryset's delete() are covered too.


@receiver(pre_delete, sender=User)
def _require_shard(sender: type[User], instance: User, **kwargs: object) -> None:
    """Raise while the user's shard is down, before the account is gone."""
    get_user_from_shard(instance.pk)


@receiver(post_delete, sender=User)
def _delete_owned_after_commit(
    sender: type[User], instance: User, using: str, **kwargs: object
) -> None:
    user_id = instance.pk  # which the instance is about to lose

    def delete_owned() -> None:
        _delete_owned(user_id)

    # Robust: one user's failure, which is logged, must not keep others' rows.
    transaction.on_commit(delete_owned, using=using, robust=True)


def _delete_owned(user_id: UUID | str) -> None:
    Profile.objects.filter(user_id=user_id).delete()


def _change(instance: User | Profile, values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        setattr(instance, name, value)
    instance.full_clean(exclude={f.name for f in instance._meta.fields} - values.keys())
    instance.save(update_fields=[*values, "updated_at"])
