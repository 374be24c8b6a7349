"""Profiles and activities in the admin, beyond what a plain table offers."""

from typing import Any
from uuid import uuid4

from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission
from django.contrib.messages import get_messages
from django.urls import reverse

from analytics.models import UserAnalytics
from sharding import slot_cache
from sharding.testing import ShardedTestCase
from tests.sharding.admin.test_differential import activity_form, inline, profile_form
from users.models import Activity, Profile, User

LIST = reverse("admin:users_profile_changelist")


def page(model: str, name: str, *args: Any) -> str:
    return reverse(f"admin:{model}_{name}", args=args)


class ProfileAdminTests(ShardedTestCase):
    admin: User
    ada: User
    activities: list[Activity]

    @classmethod
    def setUpTestData(cls) -> None:
        slot_cache.current()
        cls.admin = User.objects.create_superuser("admin@example.com")
        profile = Profile(display_name="Ada", country="GB", plan="pro")
        cls.ada = User(email="ada@example.com", name="Ada")
        cls.ada.save(profile=profile)
        cls.activities = [Activity(profile_id=cls.ada.pk, kind=f"k{n:02}") for n in range(12)]
        Activity.objects.bulk_create(cls.activities)

    def setUp(self) -> None:
        self.client.force_login(self.admin)

    def listed(self, query: str) -> list[Any]:
        response = self.client.get(f"{LIST}?{query}")
        return [row.pk for row in response.context["cl"].result_list]

    def test_filters_and_searches(self) -> None:
        both = {self.ada.pk, self.admin.pk}
        for query, expected in {
            "country=GB": {self.ada.pk},
            "country=-": {self.admin.pk},
            "country=FR": set(),
            "plan=pro": {self.ada.pk},
            "q=ada": {self.ada.pk},
            "q=ADA@EXAMPLE.COM": {self.ada.pk},
            "q=nobody@": set(),
            f"q={self.ada.pk}": {self.ada.pk},
            "": both,
        }.items():
            with self.subTest(query):
                self.assertEqual({*self.listed(query)}, expected)
        response = self.client.get(f"{LIST}?plan=gold", follow=True)
        self.assertEqual(response.redirect_chain, [(f"{LIST}?e=1", 302)])

    def test_orders_by_name(self) -> None:
        self.assertEqual(self.listed("o=1"), [self.admin.pk, self.ada.pk])
        self.assertEqual(self.listed("o=-1"), [self.ada.pk, self.admin.pk])

    def test_finds_activities_by_their_user(self) -> None:
        url = page("users_activity", "changelist")
        for term, number in ((self.ada.pk, 12), (self.activities[0].pk, 1), ("k03", 1)):
            response = self.client.get(f"{url}?q={term}")
            self.assertEqual(response.context["cl"].result_count, number)

    def test_links_the_pages_about_a_user(self) -> None:
        models = ("users_user", "users_profile", "analytics_useranalytics")
        pages = {model: page(model, "change", self.ada.pk) for model in models}
        UserAnalytics.objects.create(
            user_id=self.ada.pk, is_active=True, is_staff=False, date_joined=self.ada.date_joined
        )
        for model, url in pages.items():
            response = self.client.get(url)
            for other, link in pages.items():
                if other != model:
                    self.assertContains(response, f'href="{link}"')
        activity = page("users_activity", "change", self.activities[0].pk)
        self.assertContains(self.client.get(activity), f'href="{pages["users_user"]}"')

    def test_links_only_what_one_may_see(self) -> None:
        staff = User.objects.create_user("staff@example.com", is_staff=True)
        staff.user_permissions.set(Permission.objects.filter(codename="view_profile"))
        self.client.force_login(staff)
        response = self.client.get(page("users_profile", "change", self.ada.pk))
        self.assertNotContains(response, page("users_user", "change", self.ada.pk))
        self.assertNotContains(response, "in analytics")

    def test_refuses_a_profile_of_nobody(self) -> None:
        nobody = uuid4()
        form = profile_form(user_id=nobody) | inline(initial=0)
        response = self.client.post(page("users_profile", "add"), form)
        self.assertContains(response, "There is no account with this id.")
        self.assertFalse(Profile.objects.filter(pk=nobody).exists())

    def test_offers_an_account_without_a_profile_a_new_one(self) -> None:
        self.client.post(page("users_profile", "delete", self.ada.pk), {"post": "yes"})
        response = self.client.get(page("users_profile", "change", self.ada.pk), follow=True)
        self.assertContains(response, "ada@example.com has no profile. Add it here.")
        self.assertContains(response, f'value="{self.ada.pk}"')
        form = profile_form(user_id=self.ada.pk) | inline(initial=0)
        self.client.post(page("users_profile", "add"), form)
        self.assertTrue(Profile.objects.filter(pk=self.ada.pk).exists())

    def test_moves_profiles_to_a_plan(self) -> None:
        before = Profile.objects.get(pk=self.admin.pk).updated_at
        ids = [self.ada.pk, self.admin.pk]
        form = {"action": "move_to_team", "_selected_action": ids, "index": 0}
        response = self.client.post(LIST, form)
        said = [str(each) for each in get_messages(response.wsgi_request)]
        self.assertEqual(said, ["2 profiles are on the plan Team now."])
        self.assertEqual({Profile.objects.get(pk=pk).plan for pk in ids}, {"team"})
        self.assertGreater(Profile.objects.get(pk=self.admin.pk).updated_at, before)
        history = self.client.get(page("users_profile", "history", self.ada.pk))
        self.assertContains(history, "Changed Plan.")
        self.assertEqual(LogEntry.objects.filter(user=self.admin).count(), 2)

    def test_shows_what_goes_with_an_account(self) -> None:
        response = self.client.get(page("users_user", "delete", self.ada.pk))
        self.assertContains(response, page("users_profile", "change", self.ada.pk))
        self.assertContains(response, "k11")
        self.assertIn(("activities", 12), [*response.context["model_count"]])

    def test_changes_the_rows_that_were_sent_though_others_came_before_them(self) -> None:
        """The page of an inline shifts when somebody adds a row; its last one is then not on it."""
        url = page("users_profile", "change", self.ada.pk)
        shown = self.client.get(url).context["inline_admin_formsets"][0].formset.get_queryset()
        sent = [
            activity_form(
                id=row.pk,
                profile=self.ada.pk,
                kind=row.kind,
                amount=row.amount,
                occurred_at_0=f"{row.occurred_at:%Y-%m-%d}",
                occurred_at_1=f"{row.occurred_at:%H:%M:%S.%f}",
            )
            for row in shown
        ]
        last = sent[-1]["id"]
        sent[-1]["kind"] = "changed"
        Activity.objects.create(profile_id=self.ada.pk, kind="newer")
        form = profile_form(plan="pro") | inline(*sent, initial=len(sent))
        self.assertRedirects(self.client.post(url, form), LIST)
        self.assertEqual(Activity.objects.filter(profile=self.ada.pk).count(), 13)
        self.assertEqual(Activity.objects.get(profile=self.ada.pk, pk=last).kind, "changed")
        Activity.objects.filter(profile=self.ada.pk, pk=last).delete()
        response = self.client.post(url, form)
        self.assertContains(response, "was deleted meanwhile")
        self.assertEqual(Activity.objects.filter(profile=self.ada.pk).count(), 12)
