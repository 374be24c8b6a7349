"""What mypy knows of sharded querysets; `make lint` reads this file, and nothing runs it."""

from typing import Any, assert_type
from uuid import uuid4

from sharding.models import ShardedQuerySet
from users.models import Activity, Profile


def querysets() -> None:
    everybody = Profile.objects.across_shards()
    assert_type(everybody, ShardedQuerySet[Profile])
    assert_type(everybody.filter(plan="pro").order_by("pk"), ShardedQuerySet[Profile])
    assert_type(Profile.objects.filter(plan="pro").across_shards(), ShardedQuerySet[Profile])
    assert_type(Profile.objects.all(), ShardedQuerySet[Profile])
    assert_type(everybody[:3], ShardedQuerySet[Profile])
    assert_type(everybody[0], Profile)
    assert_type(everybody.first(), Profile | None)
    assert_type(everybody.in_bulk(), dict[Any, Profile])
    assert_type(everybody.missing_shards, frozenset[str])
    for profile in everybody:
        assert_type(profile, Profile)
    for profile in everybody.iterator():
        assert_type(profile, Profile)
    for plan in everybody.values_list("plan", flat=True):
        assert_type(plan, str)
    for pair in everybody.values_list("plan", "country"):
        assert_type(pair, tuple[str, str])


def objects() -> None:
    assert_type(Profile.objects.get(pk=uuid4()), Profile)
    assert_type(Profile.objects.create(), Profile)
    assert_type(Profile.objects.get_or_create(), tuple[Profile, bool])
    assert_type(Profile.objects.bulk_create([]), list[Profile])
    assert_type(Profile.objects.count(), int)
    assert_type(Profile.objects.across_shards().aggregate(), dict[str, Any])
    assert_type(Profile.objects.filter().delete(), tuple[int, dict[str, int]])
    assert_type(Profile.objects.filter().update(plan="pro"), int)
    assert_type(Profile().activities.get(), Activity)
    assert_type(Profile().activities.create(), Activity)
    assert_type(Profile().activities.get_or_create(), tuple[Activity, bool])
    assert_type(Profile().activities.bulk_create([Activity()]), list[Activity])
    assert_type(Profile().activities.filter(kind="login"), ShardedQuerySet[Activity])
    assert_type(Profile().activities.across_shards(), ShardedQuerySet[Activity])
    assert_type(Profile.objects.using("shard_1"), ShardedQuerySet[Profile])
    assert_type(Activity().profile, Profile)
    for activity in Profile().activities.all():
        assert_type(activity, Activity)


async def asynchronous() -> None:
    assert_type(await Profile.objects.aget(pk=uuid4()), Profile)
    assert_type(await Profile.objects.across_shards().afirst(), Profile | None)
    async for profile in Profile.objects.across_shards():
        assert_type(profile, Profile)
    async for profile in Profile.objects.across_shards().aiterator():
        assert_type(profile, Profile)


class OwnQuerySet(ShardedQuerySet[Profile]):
    def paying(self) -> "OwnQuerySet":
        return self.exclude(plan="free")


def own_methods(queryset: OwnQuerySet) -> None:
    assert_type(queryset.across_shards().paying(), OwnQuerySet)
    assert_type(queryset.paying().get(), Profile)
