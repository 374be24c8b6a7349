"""Profiles without an account, and accounts without a profile: for `shards check`.

A crash between the two servers leaves the first kind, by design, and nobody sees them. Only what is
an hour old is touched: an account may be about to be committed.
"""

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db.models import QuerySet
from django.dispatch import receiver
from django.utils import timezone

from sharding import slot_cache
from sharding.hashing import slot_for
from sharding.moves.checking import Finding
from sharding.signals import orphans_sought
from users.models import Profile, User

__all__ = ["find_orphans"]

_BATCH = 5_000
_SETTLED = timedelta(hours=1)


@receiver(orphans_sought)
def find_orphans(sender: object, repair: bool, **kwargs: object) -> list[Finding]:
    """Look at every account and every profile. Raises DatabaseUnavailable."""
    return [*_without_account(repair=repair), *_without_profile(repair=repair)]


def _without_account(*, repair: bool) -> Iterator[Finding]:
    number = 0
    profiles = Profile.objects.across_shards().filter(updated_at__lt=timezone.now() - _SETTLED)
    for keys in _batches(profiles):
        accounts = User.objects.using(settings.PRIMARY_DATABASE).filter(pk__in=keys)
        orphans = _at_rest({*keys} - {*accounts.values_list("pk", flat=True)})
        number += len(orphans)
        if repair and orphans:
            Profile.objects.filter(user_id__in=orphans).delete()
    if number:
        yield Finding(f"{number} profiles have no account, so nobody sees them.", repair)


def _without_profile(*, repair: bool) -> Iterator[Finding]:
    number = 0
    accounts = User.objects.using(settings.PRIMARY_DATABASE)
    for keys in _batches(accounts.filter(updated_at__lt=timezone.now() - _SETTLED)):
        profiles = Profile.objects.filter(user_id__in=keys).values_list("pk", flat=True)
        lacking = _at_rest({*keys} - {*profiles})
        number += len(lacking)
        if repair and lacking:
            Profile.objects.bulk_create(
                [Profile(user_id=key) for key in lacking], ignore_conflicts=True
            )
    if number:
        yield Finding(f"{number} accounts have no profile; they need an empty one.", repair)


def _batches(queryset: "QuerySet[Any]") -> Iterator[Sequence[UUID]]:
    last = UUID(int=0)
    while keys := list(
        queryset.filter(pk__gt=last).order_by("pk").values_list("pk", flat=True)[:_BATCH]
    ):
        yield keys
        last = keys[-1]


def _at_rest(keys: set[UUID]) -> set[UUID]:
    """Leave out those in slots that just move."""
    moving = frozenset[int]().union(*slot_cache.current().hidden.values())
    return {key for key in keys if slot_for(key) not in moving}
