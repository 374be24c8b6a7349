"""What the sync wrote, in the admin: to look at only."""

from django.test import TestCase
from django.urls import reverse
from django.utils import timezone

from analytics.models import ProfileAnalytics, SyncRun, UserAnalytics
from tests.support import server_down
from users.models import User


class ReadOnlyAdminTests(TestCase):
    databases = "__all__"
    admin: User
    rows: dict[str, UserAnalytics | ProfileAnalytics | SyncRun]

    @classmethod
    def setUpTestData(cls):
        cls.admin = User.objects.create_superuser("admin@example.com")
        copy = UserAnalytics.objects.create(
            user_id=cls.admin.pk,
            email="ada@example.com",
            name="Ada",
            is_active=True,
            is_staff=False,
            date_joined=timezone.now(),
        )
        profile = ProfileAnalytics.objects.create(
            user_id=cls.admin.pk,
            shard="shard_1",
            country="CH",
            plan="pro",
            created_at=timezone.now(),
            updated_at=timezone.now(),
        )
        run = SyncRun.objects.create(mode="full", error="It stopped.")
        cls.rows = {"useranalytics": copy, "profileanalytics": profile, "syncrun": run}

    def setUp(self):
        self.client.force_login(self.admin)

    def test_pages_show_the_rows(self):
        for model, row in self.rows.items():
            with self.subTest(model):
                listed = self.client.get(reverse(f"admin:analytics_{model}_changelist"))
                self.assertEqual(list(listed.context["cl"].result_list), [row])
                url = reverse(f"admin:analytics_{model}_change", args=[row.pk])
                self.assertContains(self.client.get(url), str(row))

    def test_searches_and_filters(self):
        for model, found, missed in (
            ("useranalytics", "q=ADA@", "q=bob"),
            ("useranalytics", "is_staff__exact=0", "is_staff__exact=1"),
            ("profileanalytics", "country=CH&plan=pro", "country=CH&plan=free"),
            ("profileanalytics", "shard=shard_1", "shard=shard_2"),
            ("syncrun", "q=stopped", "q=full"),
            ("syncrun", "mode=full", "mode=user"),
        ):
            with self.subTest(model, query=found):
                self.assertEqual(self.listed(model, found), [self.rows[model]])
                self.assertEqual(self.listed(model, missed), [])

    def listed(self, model: str, query: str) -> list[object]:
        url = reverse(f"admin:analytics_{model}_changelist")
        return list(self.client.get(f"{url}?{query}").context["cl"].result_list)

    def test_refuses_every_change_even_to_superusers(self):
        self.enterContext(self.assertLogs("django.request"))
        for model, row in self.rows.items():
            for name, args in (("add", []), ("change", [row.pk]), ("delete", [row.pk])):
                with self.subTest(model, page=name):
                    url = reverse(f"admin:analytics_{model}_{name}", args=args)
                    self.assertEqual(self.client.post(url, {"post": "yes"}).status_code, 403)
            row.refresh_from_db()  # it is still there

    def test_offers_no_action_on_the_selected_rows(self):
        for model, row in self.rows.items():
            url = reverse(f"admin:analytics_{model}_changelist")
            form = {"action": "delete_selected", "_selected_action": [row.pk], "post": "yes"}
            self.client.post(url, form)
            row.refresh_from_db()  # it is still there

    def test_sends_who_is_not_staff_to_the_login(self):
        self.client.force_login(User.objects.create_user("ada@example.com"))
        for model in self.rows:
            url = reverse(f"admin:analytics_{model}_changelist")
            self.assertRedirects(self.client.get(url), f"{reverse('admin:login')}?next={url}")

    def test_pages_name_analytics_while_it_is_down(self):
        self.enterContext(self.assertLogs("django.request"))
        self.enterContext(self.assertLogs("sharding.admin.site"))
        for model, row in self.rows.items():
            for name, args in (("changelist", []), ("change", [row.pk])):
                url = reverse(f"admin:analytics_{model}_{name}", args=args)
                with self.subTest(url), server_down("analytics"):
                    response = self.client.get(url)
                self.assertContains(response, "analytics cannot be reached", status_code=503)
