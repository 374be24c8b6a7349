"""Pages so deep that every shard sends what is then skipped."""

from django.test import override_settings

from sharding.testing import ShardedTestCase
from users.models import Profile


@override_settings(SHARDING_DEEP_OFFSET=100)
class DeepPageTests(ShardedTestCase):
    def test_a_deep_page_is_answered_with_a_warning_that_says_what_to_write(self) -> None:
        pages = Profile.objects.across_shards().order_by("created_at")
        with self.assertLogs("sharding.orm.plan", "WARNING") as logs:
            self.assertEqual(list(pages[101:121]), [])
        self.assertRegex(logs.output[0], r"users\.Profile: .* first 121 rows, to skip 101 of all")

    def test_other_pages_are_not(self) -> None:
        pages = Profile.objects.across_shards().order_by("created_at")
        with self.assertNoLogs("sharding.orm.plan"):
            list(pages[100:120])
            list(Profile.objects.using("shard_1").order_by("created_at")[500:520])
