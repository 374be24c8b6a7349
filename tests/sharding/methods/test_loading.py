"""Fields that are loaded later, and objects that are read again: on the object's own shard."""

from tests.sharding.methods.world import (
    BOB,
    WorldTestCase,
    activity_id,
    plain,
)
from users.models import Activity, Profile


class DeferTests(WorldTestCase):
    """Whatever is left out, the object still knows its shard."""

    def test_save_and_refresh(self) -> None:
        for queryset in (
            Activity.objects.only("kind"),
            Activity.objects.only("pk"),
            Activity.objects.only(),
            Activity.objects.defer("amount"),
            Activity.objects.defer("profile"),
            Activity.objects.defer("profile_id", "kind"),
            Activity.objects.only("kind", "profile").defer("profile"),
            Activity.objects.only("kind").only("amount"),
        ):
            activity = queryset.get(profile=BOB, pk=activity_id(BOB, 1))
            self.assertNotIn("profile", activity.get_deferred_fields())
            activity.kind = "changed"
            with self.assert_touches("shard_2"):
                activity.save()
                activity.refresh_from_db()
            self.assertEqual(activity.kind, "changed")

    def test_only_these_fields_are_written(self) -> None:
        activity = Activity.objects.only("kind").get(profile=BOB, pk=activity_id(BOB, 1))
        plain(Activity, "shard_2").filter(pk=activity.pk).update(amount=77)
        activity.save()
        self.assertEqual(plain(Activity, "shard_2").get(pk=activity.pk).amount, 77)

    def test_a_deferred_field_is_loaded_from_the_shard(self) -> None:
        profile = Profile.objects.across_shards().defer("bio").get(display_name="Bob")
        with self.assert_touches("shard_2", times=1):
            self.assertEqual(profile.bio, "")

    def test_all_is_loaded_again(self) -> None:
        activity = Activity.objects.only("kind").defer(None).get(profile=BOB, kind="login")
        self.assertEqual(activity.get_deferred_fields(), set())

    def test_through_select_related(self) -> None:
        activity = (
            Activity.objects.select_related("profile")
            .only("kind", "profile__plan")
            .get(profile=BOB, kind="login")
        )
        activity.profile.plan = "team"
        with self.assert_touches("shard_2"):
            activity.profile.save()
        self.assertEqual(plain(Profile, "shard_2").get(pk=BOB).plan, "team")

    def test_as_django_refuses(self) -> None:
        for call in (
            lambda: Activity.objects.only(None),  # type: ignore[arg-type]
            lambda: Activity.objects.values("kind").only("kind"),
            lambda: Activity.objects.values("kind").defer("kind"),
        ):
            with self.assertRaises(TypeError):
                call()


class RefreshTests(WorldTestCase):
    def test_from_the_objects_shard(self) -> None:
        profile = Profile.objects.get(pk=BOB)
        plain(Profile, "shard_2").filter(pk=BOB).update(plan="team", bio="new")
        with self.assert_touches("shard_2", times=1):
            profile.refresh_from_db(fields=["plan"])
        self.assertEqual((profile.plan, profile.bio), ("team", ""))
        with self.assert_touches("shard_2", times=1):
            profile.refresh_from_db()
        self.assertEqual(profile.bio, "new")

    def test_from_a_queryset(self) -> None:
        activity = Activity.objects.get(profile=BOB, kind="login")
        with self.assert_touches("shard_2", times=1):
            activity.refresh_from_db(from_queryset=Activity.objects.select_related("profile"))
        with self.assert_touches():
            self.assertEqual(activity.profile.display_name, "Bob")

    async def test_async(self) -> None:
        profile = await Profile.objects.aget(pk=BOB)
        await plain(Profile, "shard_2").filter(pk=BOB).aupdate(plan="team")
        await profile.arefresh_from_db()
        self.assertEqual(profile.plan, "team")
