"""Accounts in the admin."""

from django.contrib.auth.models import Group, Permission
from django.db.models import QuerySet
from django.test import TestCase
from django.urls import reverse

from sharding import get_shard_for_user_id
from users.models import Profile, User
from users.services import get_user_from_shard

PASSWORD = "a-long-and-rare-one"
LIST = reverse("admin:users_user_changelist")
ADD = reverse("admin:users_user_add")


def page(name: str, user: User) -> str:
    return reverse(f"admin:users_user_{name}", args=[user.pk])


class UserAdminTests(TestCase):
    databases = "__all__"
    admin: User
    ada: User

    @classmethod
    def setUpTestData(cls):
        cls.admin = User.objects.create_superuser("admin@example.com", PASSWORD)
        cls.ada = User.objects.create_user("ada@example.com", PASSWORD, name="Ada Lovelace")

    def setUp(self):
        self.client.force_login(self.admin)

    def change(self, **values: object) -> dict[str, object]:
        """The change form of Ada as a browser sends it, with these values changed."""
        joined = {"date_joined_0": "2024-05-01", "date_joined_1": "10:00:00"}
        return {"email": self.ada.email, "name": self.ada.name, "is_active": "on"} | joined | values

    def test_logs_in_by_email_whatever_its_case(self):
        self.client.logout()
        form = {"username": "Admin@Example.com", "password": PASSWORD}
        self.client.post(reverse("admin:login"), form)
        self.assertEqual(self.client.session["_auth_user_id"], str(self.admin.pk))

    def test_sends_who_is_not_staff_to_the_login(self):
        self.client.force_login(self.ada)
        self.assertRedirects(self.client.get(LIST), f"{reverse('admin:login')}?next={LIST}")

    def test_lists_and_searches_and_filters(self):
        self.assertContains(self.client.get(LIST), "ada@example.com")
        for query in ("q=ADA@", "q=lovelace", "is_staff__exact=0"):
            with self.subTest(query):
                response = self.client.get(f"{LIST}?{query}")
                self.assertEqual(list(response.context["cl"].result_list), [self.ada])

    def test_adds_an_account_with_its_profile(self):
        self.assertContains(self.client.get(ADD), 'name="password2"')
        response = self.client.post(ADD, self.new(email="Bob@Example.com"))
        bob = User.objects.get(email="bob@example.com")
        self.assertRedirects(response, page("change", bob))
        self.assertTrue(bob.check_password(PASSWORD))
        self.assertIsNotNone(get_user_from_shard(bob.pk))

    def test_refuses_two_passwords_that_differ_and_a_known_email(self):
        for wrong in ({"password2": "another"}, {"email": "ADA@example.com"}):
            with self.subTest(wrong):
                response = self.client.post(ADD, self.new(**wrong))
                self.assertEqual(list(response.context["adminform"].errors), list(wrong))
        self.assertEqual(User.objects.count(), 2)

    def new(self, **values: str) -> dict[str, str]:
        form = {"email": "bob@example.com", "name": "Bob", "usable_password": "true"}
        return form | {"password1": PASSWORD, "password2": PASSWORD} | values

    def test_shows_the_hash_but_takes_no_new_one(self):
        response = self.client.get(page("change", self.ada))
        self.assertContains(response, "../password/")
        self.client.post(page("change", self.ada), self.change(password="stolen"))
        self.ada.refresh_from_db()
        self.assertTrue(self.ada.check_password(PASSWORD))

    def test_changes_an_account_and_keeps_its_profile(self):
        self.profile().update(bio="Wrote programs.")
        response = self.client.post(page("change", self.ada), self.change(name="Ada King"))
        self.assertRedirects(response, LIST)
        self.ada.refresh_from_db()
        self.assertEqual(self.ada.name, "Ada King")
        self.assertEqual(self.profile().get().bio, "Wrote programs.")

    def profile(self) -> QuerySet[Profile]:
        return Profile.objects.using(get_shard_for_user_id(self.ada.pk)).filter(pk=self.ada.pk)

    def test_gives_groups_and_permissions(self):
        group = Group.objects.create(name="Support")
        right = Permission.objects.get(codename="view_user")
        form = self.change(is_staff="on", groups=[group.pk], user_permissions=[right.pk])
        self.assertRedirects(self.client.post(page("change", self.ada), form), LIST)
        self.assertEqual(list(self.ada.groups.all()), [group])
        self.client.force_login(self.ada)
        self.assertEqual(self.client.get(LIST).status_code, 200)

    def test_staff_cannot_rise_nor_change_others_of_the_staff(self):
        staff = User.objects.create_user("staff@example.com", PASSWORD, is_staff=True)
        staff.user_permissions.set(Permission.objects.filter(content_type__model="user"))
        self.client.force_login(staff)
        rights = {"is_staff": "on", "is_superuser": "on"}
        form = self.change(name="Ada King", **rights, user_permissions=[1])
        self.assertRedirects(self.client.post(page("change", self.ada), form), LIST)
        self.ada.refresh_from_db()
        self.assertEqual((self.ada.name, self.ada.is_staff), ("Ada King", False))
        self.assertFalse(self.ada.is_superuser or self.ada.user_permissions.exists())
        self.enterContext(self.assertLogs("django.request"))
        password = {"usable_password": "true", "password1": PASSWORD, "password2": PASSWORD}
        for user in (self.admin, staff):
            self.assertEqual(self.client.get(page("change", user)).status_code, 200)
            url = reverse("admin:auth_user_password_change", args=[user.pk])
            for path, sent in (
                (page("change", user), self.change(**rights)),
                (page("delete", user), {"post": "yes"}),
                (url, password | {"set-password": "1"}),
            ):
                self.assertEqual(self.client.post(path, sent).status_code, 403)
            chosen = {"action": "delete_selected", "_selected_action": [user.pk], "post": "yes"}
            self.assertEqual(self.client.post(LIST, chosen).status_code, 403)
        self.assertEqual(User.objects.filter(is_superuser=True).count(), 1)

    def test_sets_another_password(self):
        url = reverse("admin:auth_user_password_change", args=[self.ada.pk])
        new = PASSWORD + "-2"
        form = {"usable_password": "true", "password1": new, "password2": new}
        form["set-password"] = "1"
        self.assertEqual(self.client.get(url).status_code, 200)
        self.assertRedirects(self.client.post(url, form), page("change", self.ada))
        self.ada.refresh_from_db()
        self.assertTrue(self.ada.check_password(new))

    def test_deletes_an_account_with_its_profile(self):
        self.assertContains(self.client.get(page("delete", self.ada)), "Are you sure")
        with self.captureOnCommitCallbacks(execute=True):
            response = self.client.post(page("delete", self.ada), {"post": "yes"})
        self.assertRedirects(response, LIST)
        self.assertGone()

    def test_deletes_the_selected_accounts_with_their_profiles(self):
        form = {"action": "delete_selected", "_selected_action": [self.ada.pk], "post": "yes"}
        with self.captureOnCommitCallbacks(execute=True):
            self.client.post(LIST, form)
        self.assertGone()

    def assertGone(self):
        self.assertFalse(User.objects.filter(pk=self.ada.pk).exists())
        self.assertIsNone(get_user_from_shard(self.ada.pk))
