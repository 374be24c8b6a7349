"""The admin while a database is down: the other rows, and which database is missing."""

import html
import re
from typing import Any
from unittest.mock import patch
from uuid import UUID

from django.contrib.admin.models import LogEntry
from django.contrib.messages import get_messages
from django.db import connections
from django.urls import reverse

from sharding import get_shard_for_user_id
from tests.sharding.admin.test_differential import activity_form, inline, profile_form
from tests.sharding.methods.world import (
    ADA,
    BOB,
    CY,
    FREE_ID,
    WorldTestCase,
    activities,
    activity_id,
    plain,
    profiles,
)
from tests.support import fenced, server_down
from users.models import Activity, Profile, User

DOWN = "shard_2"  # where Bob is
LIST = reverse("admin:users_profile_changelist")


def page(model: str, name: str, *args: Any) -> str:
    return reverse(f"admin:users_{model}_{name}", args=args)


def said(response: Any) -> str:
    return " ".join(map(str, get_messages(response.wsgi_request)))


class OutageTests(WorldTestCase):
    user: User
    bob: User

    @classmethod
    def setUpTestData(cls) -> None:
        super().setUpTestData()
        # Its id decides its shard, and must not be on the one that is down.
        cls.user = User.objects.create_superuser("admin@example.com", id=UUID(int=4 << 76))
        cls.bob = User.objects.create(id=FREE_ID, email="bob@example.com")

    def setUp(self) -> None:
        super().setUp()
        self.client.force_login(self.user)
        for module in ("outage", "site"):
            self.enterContext(patch(f"sharding.admin.{module}.logger"))

    def names(self, response: Any) -> list[str]:
        return [str(row) for row in response.context["cl"].result_list]

    def test_the_list_shows_the_others_and_names_the_shard(self) -> None:
        for query, names in (
            ("?o=1", {"Ada", "Cy", "Dee", "Fay"}),
            ("?q=a", {"Ada", "Fay"}),
            ("?country=CH", {"Ada", "Cy", "Fay"}),
            (f"?q={BOB}", set()),
            (f"?shard={DOWN}", set()),
        ):
            with self.subTest(query), server_down(DOWN):
                response = self.client.get(LIST + query)
                self.assertEqual(response.status_code, 200)
                self.assertLessEqual(names, {*self.names(response)})
                self.assertFalse({"Bob", "Eve"} & {*self.names(response)})
                self.assertContains(response, "shard_2 cannot be reached. Its rows are not in")
        self.assertIn("Bob", self.names(self.client.get(LIST)))

    def test_the_list_says_nothing_when_all_are_there(self) -> None:
        self.assertNotContains(self.client.get(LIST), "cannot be reached")
        with server_down(DOWN):
            response = self.client.get(f"{LIST}?q={ADA}")
        self.assertNotContains(response, "cannot be reached")

    def test_all_shards_are_down(self) -> None:
        with server_down("shard_1"), server_down("shard_2"), server_down("shard_3"):
            response = self.client.get(LIST)
        self.assertContains(response, "shard_1 and shard_2 and shard_3 cannot be reached. Their")

    def test_pages_of_the_other_shards_work(self) -> None:
        with server_down(DOWN):
            for url in (
                *(page("profile", name, ADA) for name in ("change", "delete", "history")),
                page("activity", "change", activity_id(ADA, 0)),
                page("activity", "add"),
            ):
                self.assertEqual(self.client.get(url).status_code, 200, url)
            form = profile_form(display_name="Ada King") | inline(initial=0)
            response = self.client.post(page("profile", "change", ADA), form)
            self.assertEqual(response.headers.get("Location"), LIST)
        self.assertEqual(Profile.objects.get(pk=ADA).display_name, "Ada King")

    def test_pages_of_that_shard_name_it(self) -> None:
        self.enterContext(self.assertLogs("django.request"))
        with server_down(DOWN):
            for url in (
                *(page("profile", name, BOB) for name in ("change", "delete", "history")),
                page("activity", "change", activity_id(BOB, 0)),  # on any shard, for all we know
            ):
                response = self.client.get(url)
                self.assertContains(response, "shard_2 cannot be reached", status_code=503)
                self.assertIn("Retry-After", response)

    def test_choices_lack_the_rows_and_say_so(self) -> None:
        field = "app_label=users&model_name=activity&field_name=profile"
        with server_down(DOWN):
            response = self.client.get(f"{reverse('admin:autocomplete')}?{field}")
        *offered, last = response.json()["results"]
        self.assertEqual(len(offered), 5)  # the superuser's profile among them
        self.assertEqual(
            last,
            {
                "id": "",
                "text": "shard_2 cannot be reached: its rows are missing here.",
                "disabled": True,
            },
        )

    def test_a_new_profile_is_not_saved_and_not_lost(self) -> None:
        self.enterContext(self.assertLogs("django.request"))
        Profile.objects.filter(pk=FREE_ID).delete()
        data = profile_form(user_id=FREE_ID, display_name="Typed long") | inline(initial=0)
        with server_down(DOWN):
            response = self.client.post(page("profile", "add"), data)
        self.assertContains(response, "shard_2 cannot be reached. Nothing was", status_code=503)
        self.assertContains(response, "Typed long", status_code=503)
        self.assertFalse(LogEntry.objects.exists())
        self.assertEqual(self.client.post(page("profile", "add"), data).status_code, 302)

    def test_a_new_activity_is_not_saved_and_not_lost(self) -> None:
        self.enterContext(self.assertLogs("django.request"))
        data = activity_form(profile=BOB, kind="typed", payload="{}")
        with server_down(DOWN):
            response = self.client.post(page("activity", "add"), data)
        self.assertContains(response, "shard_2 cannot be reached", status_code=503)
        self.assertContains(response, "typed", status_code=503)
        self.assertContains(response, f'<option value="{BOB}" selected', status_code=503)

    def test_a_change_may_be_sent_again(self) -> None:
        self.enterContext(self.assertLogs("django.request"))
        url = page("profile", "change", BOB)
        data = profile_form(display_name='"Typed" long', plan="team") | inline(initial=0)
        with server_down(DOWN):
            response = self.client.post(url, data)
        self.assertContains(response, "Send it again", status_code=503)
        self.assertIn("Retry-After", response)
        fields = re.findall(r'type="hidden" name="(.+?)" value="(.*?)">', response.content.decode())
        sent = {name: html.unescape(value) for name, value in fields}
        self.assertEqual(sent | {key: str(value) for key, value in data.items()}, sent)
        self.assertRedirects(self.client.post(url, sent), LIST)
        self.assertEqual(Profile.objects.get(pk=BOB).display_name, '"Typed" long')

    def test_rows_that_are_just_moving(self) -> None:
        self.enterContext(self.assertLogs("django.request"))
        url = page("profile", "change", BOB)
        data = profile_form(display_name="Typed long") | inline(initial=0)
        chosen = {"action": "move_to_team", "_selected_action": [ADA, BOB], "index": 0}
        with fenced(BOB):
            response = self.client.post(url, data)
            self.assertContains(response, "just moving away from shard_2", status_code=503)
            self.assertIn("Retry-After", response)
            self.assertContains(response, 'value="Typed long"', status_code=503)
            for path, form in ((page("profile", "delete", BOB), {"post": "yes"}), (LIST, chosen)):
                self.assertIn("Nothing was changed", said(self.client.post(path, form)))
        self.assertEqual({Profile.objects.get(pk=pk).plan for pk in (ADA, BOB)}, {"pro", "free"})
        self.assertFalse(LogEntry.objects.exists())
        self.assertEqual(self.client.post(url, data).status_code, 302)

    def test_a_choice_that_is_none(self) -> None:
        url = page("activity", "add")
        data = activity_form(profile="nobody", payload="{}")
        for response in (self.client.post(url, data), self.client.get(f"{url}?profile=nobody")):
            self.assertContains(response, "nobody")

    def test_a_new_account_is_not_saved_and_not_lost(self) -> None:
        self.enterContext(self.assertLogs("django.request"))
        password = {"usable_password": "false", "password1": "", "password2": ""}
        with server_down("shard_1"), server_down("shard_2"), server_down("shard_3"):
            data = {"email": "new@example.com", "name": "Typed long", **password}
            response = self.client.post(page("user", "add"), data)
        self.assertContains(response, "cannot be reached. Nothing was changed", status_code=503)
        self.assertContains(response, "Typed long", status_code=503)
        self.assertFalse(User.objects.filter(email="new@example.com").exists())
        self.assertEqual(self.client.post(page("user", "add"), data).status_code, 302)

    def test_an_account_is_not_deleted(self) -> None:
        self.enterContext(self.assertLogs("django.request"))
        form = {"action": "delete_selected", "_selected_action": [FREE_ID], "post": "yes"}
        for url, data in (
            (page("user", "delete", FREE_ID), {"post": "yes"}),
            (page("user", "changelist"), form),
        ):
            with server_down(DOWN):
                response = self.client.post(url, data)
            self.assertRedirects(response, page("user", "changelist"))
            self.assertIn("shard_2 cannot be reached. Nothing was changed", said(response))
            self.assertTrue(User.objects.filter(pk=FREE_ID).exists())
        with server_down(DOWN):
            response = self.client.get(page("user", "delete", FREE_ID))
        self.assertContains(response, "shard_2 cannot be reached", status_code=503)

    def test_nothing_is_deleted_that_cannot_be(self) -> None:
        with server_down(DOWN):
            response = self.client.post(page("profile", "delete", BOB), {"post": "yes"})
        self.assertIn("Nothing was changed", said(response))
        self.assertFalse(LogEntry.objects.exists())
        self.assertTrue(Profile.objects.filter(pk=BOB).exists())

    def test_an_action_is_done_on_all_of_its_rows_or_on_none(self) -> None:
        for url, model, ids in (
            (LIST, Profile, [ADA, BOB, CY]),
            (page("activity", "changelist"), Activity, [activity_id(x, 0) for x in (ADA, BOB, CY)]),
        ):
            form = {"action": "delete_selected", "_selected_action": ids, "post": "yes"}
            with self.subTest(model), server_down(DOWN):
                response = self.client.post(url, form)
                self.assertIn("shard_2 cannot be reached. Nothing was changed", said(response))
            found = model.objects.across_shards().filter(pk__in=ids)
            self.assertEqual(found.count(), 3)
            self.assertFalse(LogEntry.objects.exists())

    def test_an_action_on_rows_of_the_others(self) -> None:
        form = {"action": "move_to_team", "_selected_action": [ADA, CY], "index": 0}
        with server_down(DOWN):
            self.assertRedirects(self.client.post(LIST, form), LIST)
        self.assertEqual(Profile.objects.get(pk=ADA).plan, "team")
        self.assertEqual(LogEntry.objects.count(), 2)

    def test_an_action_on_all_rows_needs_all_shards(self) -> None:
        form = {"action": "move_to_team", "_selected_action": [ADA], "index": 0}
        with server_down(DOWN):
            response = self.client.post(LIST, form | {"select_across": 1})
        self.assertIn("shard_2 cannot be reached. Nothing was changed", said(response))
        self.assertEqual(Profile.objects.get(pk=ADA).plan, "pro")

    def test_a_row_that_stands_on_two_shards_is_the_owners(self) -> None:
        """So it is while its slot moves; the copy may be an older one."""
        copies: Any = [
            [each for each in rows() if each.shard_key_value == BOB]
            for rows in (profiles, activities)
        ]
        copies[1][0].kind = "older"
        with connections["shard_1"].cursor() as cursor:
            cursor.execute("SET LOCAL session_replication_role = replica")
            for model, objects in zip((Profile, Activity), copies, strict=True):
                plain(model, "shard_1").bulk_create(objects)
        row = activity_id(BOB, 0)
        response = self.client.get(page("activity", "change", row))
        self.assertEqual(response.context["original"].kind, "login")
        self.client.post(page("activity", "delete", row), {"post": "yes"})
        self.assertFalse(plain(Activity, DOWN).filter(pk=row).exists())

    def test_the_primary_is_down(self) -> None:
        self.enterContext(self.assertLogs("django.request"))
        with server_down("default"):
            for url in (LIST, reverse("admin:index"), page("user", "add"), reverse("admin:login")):
                response = self.client.get(url)
                self.assertContains(response, "primary cannot be reached", status_code=503)
        self.assertNotIn(connections["default"].settings_dict["HOST"], response.content.decode())

    def test_the_shards_of_this_test(self) -> None:
        self.assertEqual(get_shard_for_user_id(FREE_ID), DOWN)
        self.assertNotEqual(get_shard_for_user_id(self.user.pk), DOWN)
