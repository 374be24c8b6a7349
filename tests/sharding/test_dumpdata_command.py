"""dumpdata of one database of many."""

import json
from io import StringIO
from typing import Any

from django.core.management import CommandError, call_command

from sharding.testing import ShardedTestCase
from tests.sharding.ids import id_on
from users.models import Profile, User


class DumpdataTests(ShardedTestCase):
    def dump(self, *labels: str, **options: Any) -> tuple[list[Any], str]:
        """Return what it writes, and what it says."""
        out, err = StringIO(), StringIO()
        call_command("dumpdata", *labels, stdout=out, stderr=err, **options)
        return json.loads(out.getvalue()), err.getvalue()

    def test_what_is_left_out_is_named(self) -> None:
        User.objects.create_user("ada@example.com")
        rows, said = self.dump("users.User", "users")
        self.assertIn("users.user", {row["model"] for row in rows})
        self.assertIn("Left out, as not on default: users.Profile", said)
        self.assertIn("users.Activity, users.ProfileChange (on shard_1, shard_2, shard_3)", said)
        self.assertIn("analytics.UserAnalytics", self.dump()[1])

    def test_a_model_that_is_named_and_lives_elsewhere_is_refused(self) -> None:
        for label, where in (
            ("users.profile", "users.Profile (on shard_1, shard_2, shard_3)"),
            ("analytics.UserAnalytics", "analytics.UserAnalytics (on analytics)"),
        ):
            with self.subTest(label), self.assertRaises(CommandError) as raised:
                self.dump("users.User", label)
            self.assertIn(where, str(raised.exception))

    def test_of_one_shard(self) -> None:
        keys = [id_on(alias) for alias in ("shard_1", "shard_2")]
        for key in keys:
            Profile.objects.create(user_id=key)
        rows, said = self.dump("users.Profile", database="shard_2")
        self.assertEqual(([row["pk"] for row in rows], said), ([str(keys[1])], ""))

    def test_what_is_excluded_is_not_missed(self) -> None:
        beside = ["analytics.SyncPosition", "analytics.SyncArrival"]
        self.assertEqual(self.dump("analytics", database="analytics", exclude=beside)[1], "")
        with self.assertRaisesMessage(CommandError, "Unknown model: users.Nobody"):
            self.dump("users.Nobody")
