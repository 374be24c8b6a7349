"""The one reader of the app's settings."""

from unittest import mock

from django.conf import settings
from django.test import SimpleTestCase, override_settings

from sharding import conf
from sharding.errors import InvalidSlotMap


class ConfTests(SimpleTestCase):
    def test_shards_in_the_order_of_their_numbers(self) -> None:
        shards = ["shard_10", "shard_2", "shard_1"]
        others = ["default", "shard_0", "shard_01", "shard_x", "old_shard_3", "shard_4_", "shard_٣"]
        with mock.patch.dict(settings.DATABASES, dict.fromkeys([*shards, *others]), clear=True):
            self.assertEqual(conf.shards(), ("shard_1", "shard_2", "shard_10"))

    @override_settings(PRIMARY_DATABASE="shard_1")
    def test_the_primary(self) -> None:
        self.assertEqual(conf.primary(), "shard_1")
        self.assertEqual((conf.label("shard_1"), conf.label("default")), ("primary", "default"))

    def test_analytics(self) -> None:
        with override_settings(DATABASE_APPS={"analytics": "reports", "billing": "money"}):
            self.assertEqual(conf.analytics(), "reports")
            self.assertEqual(conf.app_databases()["billing"], "money")
        with override_settings(DATABASE_APPS={}):
            self.assertEqual(conf.analytics(), "analytics")

    @override_settings()
    def test_without_optional_settings(self) -> None:
        for name in ("DATABASE_APPS", "ANALYTICS_PATHS", "SHARD_SLOTS"):
            delattr(settings, name)
        self.assertEqual((conf.app_databases(), conf.analytics_paths()), ({}, ()))
        self.assertEqual(conf.first_slot_map().aliases, {*conf.shards()})

    def test_the_first_slot_map(self) -> None:
        with override_settings(SHARD_SLOTS="shard_2=0-999"):
            self.assertEqual(conf.first_slot_map().aliases, {"shard_2"})
        with (
            override_settings(SHARD_SLOTS="analytics=0-999"),
            self.assertRaisesMessage(InvalidSlotMap, "analytics, which DATABASES does not declare"),
        ):
            conf.first_slot_map()
