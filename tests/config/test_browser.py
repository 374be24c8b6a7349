"""What people do in the admin, in a browser, over servers of which one dies meanwhile."""

from datetime import timedelta
from typing import Any
from uuid import UUID

from django.db import close_old_connections
from django.utils import timezone

from analytics.models import ProfileAnalytics
from config.embedded import Cluster
from sharding import get_shard_for_user_id
from tests.browser import BrowserTestCase
from tests.outage import migrated_servers
from users.models import Activity, Profile, User

DOWN = "shard_2"
PASSWORD = "a-long-and-rare-one"
_NAMES = ("Ada", "Bob", "Cy", "Dee", "Eve", "Fay")


def _user_id(number: int) -> UUID:
    """Return ids that go to each of three shards in turn."""
    return UUID(f"{[10, 410, 810][number % 3]:08x}-0000-4000-8000-{number:012x}")


class AdminTests(BrowserTestCase):
    admin: User
    servers: Cluster

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.servers = cls.enterClassContext(migrated_servers(DOWN))
        cls.admin = User(id=_user_id(0), email="admin@example.com", is_staff=True)
        cls.admin.is_superuser = True
        cls.admin.set_password(PASSWORD)
        cls.admin.save()
        cls.log_in()

    def setUp(self) -> None:
        super().setUp()
        for number, name in enumerate(_NAMES, start=3):
            self.store(_user_id(number), name, days_ago=number)

    def store(self, user_id: UUID, name: str, *, days_ago: int) -> None:
        joined = timezone.now() - timedelta(days=days_ago)
        account = User(id=user_id, email=f"{name.lower()}@example.com", date_joined=joined)
        profile = Profile(display_name=name, country="CH", created_at=joined)
        account.save(profile=profile)
        Activity.objects.create(profile=profile, kind="login")
        self.addCleanup(User.objects.filter(pk=user_id).delete)

    @classmethod
    def log_in(cls) -> None:
        page = cls.context.new_page()
        page.goto(f"{cls.url}/admin/login/")
        page.fill("input[name=username]", "Admin@example.com")
        page.fill("input[name=password]", PASSWORD)
        page.click("button[type=submit]")
        page.wait_for_selector(".dashboard")
        page.close()

    def go(self, path: str) -> None:
        self.page.goto(f"{self.url}/admin/{path}")

    def see(self, text: str) -> Any:
        """Wait until a text is to be seen."""
        found = self.page.get_by_text(text).first
        found.wait_for(state="visible")
        return found

    def rows(self) -> list[str]:
        """The names of the profiles in the list."""
        return self.page.locator("th.field-name a").all_inner_texts()

    def test_the_dashboard_and_a_sync(self) -> None:
        self.go("")
        for name in ("primary", "analytics", "shard_1", "shard_2", "shard_3"):
            self.see(name)
        self.assertEqual(self.page.locator(".dashboard-state.up").count(), 5)
        self.page.click("text=Sync now")
        self.see("Synced: ")
        self.assertEqual(ProfileAnalytics.objects.count(), 1 + len(_NAMES))
        self.see("7 users on 3 shards")
        self.assertEqual(self.page.locator("canvas.chart").count(), 3)
        self.page.reload()  # no second sync: the page was got, not sent
        self.assertEqual(self.page.get_by_text("Synced: ").count(), 0)
        self.assert_sound()

    def test_finds_changes_and_deletes_a_profile(self) -> None:
        self.go("users/profile/")
        self.page.fill("#searchbar", "e")
        self.page.press("#searchbar", "Enter")
        self.page.wait_for_url("**q=e*")
        self.assertEqual(self.rows(), ["Dee", "Eve"])
        self.page.click("text=Eve")
        self.page.fill("input[name=display_name]", "Evelyn")
        self.page.click("text=Add another Activity")
        self.page.fill("input[name=activities-1-kind]", "called")
        self.page.click("button[name=_save]")
        self.see("was changed successfully")
        eve = Profile.objects.get(pk=_user_id(7))
        self.assertEqual((eve.display_name, eve.activities.count()), ("Evelyn", 2))
        self.page.click("text=Evelyn")
        self.page.click("a[href$='/delete/']")
        self.see("Are you sure")
        self.see("called at")
        self.page.click("text=Yes, I’m sure")
        self.see("was deleted successfully")
        self.assertFalse(Profile.objects.filter(pk=_user_id(7)).exists())
        self.assert_sound()

    def test_an_action_on_rows_of_all_shards(self) -> None:
        self.go("users/profile/?country=CH")
        self.page.check("#action-toggle")
        self.page.select_option("select[name=action]", "move_to_team")
        self.page.click("button[name=index]")
        self.see("6 profiles are on the plan Team now.")
        moved = Profile.objects.across_shards().filter(plan="team")
        shards = {get_shard_for_user_id(each.pk) for each in moved}
        self.assertEqual(shards, {"shard_1", "shard_2", "shard_3"})
        self.assert_sound()

    def test_chooses_the_profile_of_a_new_activity(self) -> None:
        self.go("users/activity/add/")
        self.page.click(".select2-selection")
        self.page.fill(".select2-search__field", "fay")
        self.page.locator(".select2-results__option", has_text="Fay").click()
        self.page.fill("input[name=kind]", "chosen")
        self.page.click("button[name=_save]")
        self.see("was added successfully")
        self.assertTrue(Activity.objects.filter(profile=_user_id(8), kind="chosen").exists())
        self.assert_sound()

    def test_nothing_is_cut_off(self) -> None:
        row = _user_id(3)
        for path in (
            *("", "users/profile/", "users/activity/", "analytics/syncrun/", "users/user/add/"),
            *(f"users/{name}/change/" for name in (f"profile/{row}", f"user/{row}")),
            f"users/user/{row}/delete/",
        ):
            for width in (1280, 390):
                self.page.set_viewport_size({"width": width, "height": 844})
                self.go(path)
                with self.subTest(path, width=width):
                    wide = self.page.evaluate("document.documentElement.scrollWidth")
                    self.assertLessEqual(wide, width)
        self.assert_sound()

    def test_a_shard_dies(self) -> None:
        self.enterContext(self.assertLogs(level="ERROR"))
        self.go("users/profile/?country=CH&o=1")
        self.assertEqual(self.rows(), [*_NAMES])
        self.page.click("text=Bob")
        self.page.wait_for_selector("input[name=display_name]")
        self.servers.kill(DOWN)
        self.addCleanup(self.revive)
        self.page.fill("input[name=display_name]", "Robert")
        self.page.click("button[name=_save]")
        self.see("shard_2 cannot be reached")
        waiting = self.page
        self.page = self.context.new_page()
        self.go("users/profile/?country=CH&o=1")
        self.see("shard_2 cannot be reached. Its rows are not in this list.")
        self.assertEqual(self.rows(), ["Ada", "Cy", "Dee", "Fay"])
        self.go("")
        self.see("shard_2 cannot be reached. Everything on the other databases works.")
        self.assertEqual(self.page.locator(".dashboard-state.down").count(), 1)
        self.page.click("text=Sync now")
        self.see("Not synced: profiles/shard_2")
        self.revive()
        self.go("users/profile/?country=CH&o=1")
        self.assertEqual(self.rows(), [*_NAMES])
        self.page.close()
        self.page = waiting
        self.page.click("text=Send it again")
        self.see("was changed successfully")
        self.assertEqual(Profile.objects.get(pk=_user_id(4)).display_name, "Robert")
        self.assert_sound()

    def revive(self) -> None:
        self.servers.start()
        close_old_connections()
