"""What each page of the admin asks of the shards."""

from typing import Any
from unittest.mock import patch

from django.contrib import admin
from django.contrib.auth.models import Permission
from django.test import SimpleTestCase
from django.urls import reverse

from sharding import get_shard_for_user_id, slot_cache
from sharding.admin import BoundedPaginator, ShardedModelAdmin
from sharding.testing import ShardedTestCase
from tests.sharding.orm.data import rows
from users.models import Activity, Profile, User

LIST = reverse("admin:users_profile_changelist")
ACTIVITIES = reverse("admin:users_activity_changelist")


class CostTests(ShardedTestCase):
    user: User
    profile: Profile
    activity: Activity

    @classmethod
    def setUpTestData(cls) -> None:
        slot_cache.current()
        cls.user = User.objects.create_superuser("admin@example.com")
        profiles, activities = rows()
        Profile.objects.bulk_create(profiles)
        Activity.objects.bulk_create(activities)
        activity = Activity.objects.across_shards().order_by("pk")[0]
        cls.profile, cls.activity = activity.profile, activity

    def setUp(self) -> None:
        self.client.force_login(self.user)

    def get(self, url: str) -> Any:
        response = self.client.get(url)
        self.assertEqual(response.status_code, 200)
        return response

    def test_a_list_costs_its_page_its_count_and_the_date_hierarchy(self) -> None:
        for url in (LIST, f"{LIST}?p=2", ACTIVITIES, f"{ACTIVITIES}?p=3", f"{LIST}?o=1.2"):
            with self.subTest(url), self.assertFanout(1 + 1 + 2):
                self.get(url)

    def test_orders_by_shard(self) -> None:
        for url in (LIST, ACTIVITIES):
            for order in ("5", "-5"):
                with self.subTest(url, order=order), self.assertFanout(4):
                    first = self.get(f"{url}?o={order}").context["cl"].result_list
                rest = self.get(f"{url}?o={order}&p=2").context["cl"].result_list
                shards = [get_shard_for_user_id(row.shard_key_value) for row in (*first, *rest)]
                self.assertEqual(shards, sorted(shards, reverse=order == "-5"))
                self.assertGreater(len({*shards}), 1)

    def test_few_rows_are_not_counted_again(self) -> None:
        with self.assertFanout(1 + 2):
            self.get(f"{LIST}?plan=pro")
        with self.assertFanout(1):
            response = self.get(f"{LIST}?q=nobody")
        self.assertEqual(response.context["cl"].result_count, 0)

    def test_a_list_of_one_shard_asks_that_shard_alone(self) -> None:
        with self.assertFanout(0), self.assertShards("shard_2"):
            response = self.get(f"{LIST}?shard=shard_2")
        for row in response.context["cl"].result_list:
            self.assertEqual(get_shard_for_user_id(row.pk), "shard_2")

    def test_an_id_or_a_known_email_asks_one_shard(self) -> None:
        account = User.objects.create_user("ada@example.com")
        for term, found in ((str(self.profile.pk), self.profile.pk), ("ADA@ex", account.pk)):
            shard = get_shard_for_user_id(found)
            with self.subTest(term), self.assertFanout(0), self.assertShards(shard):
                response = self.get(f"{LIST}?q={term}")
            self.assertEqual([row.pk for row in response.context["cl"].result_list], [found])

    def test_the_pages_of_a_profile_ask_its_shard_alone(self) -> None:
        for page in ("change", "delete", "history"):
            url = reverse(f"admin:users_profile_{page}", args=[self.profile.pk])
            shard = get_shard_for_user_id(self.profile.pk)
            with self.subTest(page), self.assertFanout(0), self.assertShards(shard):
                self.get(url)

    def test_the_pages_of_an_activity_look_for_it_once(self) -> None:
        for page in ("change", "delete", "history"):
            url = reverse(f"admin:users_activity_{page}", args=[self.activity.pk])
            with self.subTest(page), self.assertFanout(1):
                self.get(url)

    def test_counts_no_further_than_the_limit(self) -> None:
        with patch.object(BoundedPaginator, "limit", 25), self.assertFanout(4):
            response = self.get(f"{LIST}?all=")
        self.assertContains(response, "more than 25")
        self.assertEqual(response.context["cl"].paginator.count, 25)
        self.assertContains(self.get(LIST), "61")

    def test_refuses_to_act_on_more_than_it_counts(self) -> None:
        form = {"action": "move_to_pro", "_selected_action": [self.profile.pk], "index": 0}
        with patch.object(BoundedPaginator, "limit", 25):
            response = self.client.post(LIST, form | {"select_across": 1}, follow=True)
        self.assertContains(response, "More than 25 rows match.")
        self.assertGreater(Profile.objects.across_shards().exclude(plan="pro").count(), 0)

    def test_an_action_asks_the_shards_of_its_rows(self) -> None:
        chosen = [self.activity.pk]
        form = {"action": "delete_selected", "_selected_action": chosen, "post": "yes"}
        with self.captureOnCommitCallbacks(execute=True):
            self.client.post(ACTIVITIES, form)
        self.assertFalse(Activity.objects.across_shards().filter(pk__in=chosen).exists())

    def test_ids_that_are_none(self) -> None:
        self.enterContext(self.assertLogs("django.request"))
        form = {"action": "delete_selected", "_selected_action": ["x"], "index": 0}
        self.assertEqual(self.client.post(LIST, form).status_code, 400)
        response = self.client.get(f"{LIST}?shard=shard_9", follow=True)
        self.assertEqual(response.redirect_chain, [(f"{LIST}?e=1", 302)])

    def test_who_may_only_look_gets_no_form(self) -> None:
        staff = User.objects.create_user("staff@example.com", is_staff=True)
        staff.user_permissions.set(
            Permission.objects.filter(codename__in=["view_profile", "view_activity"])
        )
        self.client.force_login(staff)
        self.enterContext(self.assertLogs("django.request"))
        url = reverse("admin:users_profile_change", args=[self.profile.pk])
        self.assertNotContains(self.get(url), 'name="_save"')
        for page in ("change", "delete"):
            url = reverse(f"admin:users_profile_{page}", args=[self.profile.pk])
            self.assertEqual(self.client.post(url, {"post": "yes"}).status_code, 403)
        form = {"action": "move_to_pro", "_selected_action": [self.profile.pk], "index": 0}
        self.client.post(LIST, form)
        self.assertEqual(Profile.objects.get(pk=self.profile.pk).plan, self.profile.plan)


class CheckTests(SimpleTestCase):
    def checked(self, **options: Any) -> list[str | None]:
        model_admin = type("BrokenAdmin", (ShardedModelAdmin,), options)
        return [each.id for each in model_admin(Activity, admin.site).check()]

    def test_refuses_editing_in_the_list(self) -> None:
        options = {"list_display": ("pk", "kind"), "list_editable": ("kind",)}
        self.assertEqual(self.checked(raw_id_fields=("profile",), **options), ["sharding.E020"])

    def test_refuses_a_select_box_of_all_rows_of_all_shards(self) -> None:
        self.assertEqual(self.checked(), ["sharding.E021"])
        self.assertEqual(self.checked(autocomplete_fields=("profile",)), [])
