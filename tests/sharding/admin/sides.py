"""The same rows on both sides, the same requests to both, and what is equal in their answers."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.contrib.admin.models import LogEntry
from django.contrib.contenttypes.models import ContentType
from django.contrib.messages import get_messages
from django.db import connections, models
from django.test import Client, modify_settings, override_settings

from sharding import slot_cache
from sharding.testing import ShardedTestCase
from tests.sharding.admin.plain.models import PlainActivity, PlainProfile
from tests.sharding.orm.data import ACTIVITY_IDS, PROFILE_IDS, rows
from users.models import Activity, Profile, User

__all__ = ["NEW_ID", "Side", "SidesTestCase"]

NEW_ID = "00000198-0000-4000-8000-00000000000a"

# What differs from one request to the next: tokens, the time of day, ids that are made up.
_PASSING = re.compile(
    r'name="csrfmiddlewaretoken" value="\w+"'
    r'|value="\d\d:\d\d:\d\d"|value="20(?:2[6-9]|[3-9]\d)-\d\d-\d\d"'
)
_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_KNOWN = {NEW_ID, *map(str, (*PROFILE_IDS, *ACTIVITY_IDS))}


@dataclass(frozen=True)
class Side:
    """An admin site and its models."""

    site: str
    app: str
    prefix: str
    profile: Any
    activity: Any

    def path(self, url: str) -> str:
        """Turn "profile/add/" into this side's address."""
        return f"/{self.site}/{self.app}/{self.prefix}{url}"

    def neutral(self, text: str) -> str:
        """Return text without what the two sides call themselves."""
        text = re.sub(rf"{self.prefix}(profile|activity)", r"\1", _PASSING.sub("", text))
        text = text.replace(f"/{self.site}/{self.app}/", "/~/~/").replace(f"/{self.site}/", "/~/")
        text = re.sub(rf"\b{self.app}(_|\b)", r"~\1", text)
        return _ID.sub(lambda found: found[0] if found[0] in _KNOWN else "?", text)

    def rows(self) -> list[dict[str, Any]]:
        """Return all rows, without what each side makes up by itself."""
        found = [row for rows in (self.profile(), self.activity()) for row in rows.values()]
        made_up = {"updated_at", "id"}
        kept = [{k: v for k, v in row.items() if k not in made_up} for row in found]
        return sorted(kept, key=repr)


SHARDED = Side(
    "sharded",
    "users",
    "",
    lambda: Profile.objects.across_shards(),
    lambda: Activity.objects.across_shards(),
)
PLAIN = Side("plain", "plain", "plain", PlainProfile.objects.all, PlainActivity.objects.all)


@modify_settings(INSTALLED_APPS={"append": "tests.sharding.admin.plain"})
@override_settings(ROOT_URLCONF="tests.sharding.admin.sites")
class SidesTestCase(ShardedTestCase):
    """Compares what both sites answer to the same requests."""

    maxDiff = 3000
    user: User

    @classmethod
    def setUpTestData(cls) -> None:
        cls.user = User.objects.create_superuser("admin@example.com")
        slot_cache.current()
        ContentType.objects.clear_cache()
        ContentType.objects.get_for_models(Profile, Activity, PlainProfile, PlainActivity)
        with connections["default"].schema_editor() as editor:
            for model in (PlainProfile, PlainActivity):
                editor.create_model(model)
        Profile.objects.across_shards().delete()  # the superuser's
        stored: Any = zip((Profile, Activity), (PlainProfile, PlainActivity), rows(), strict=True)
        for sharded, plain, objects in stored:
            fields = [field.attname for field in plain._meta.concrete_fields]
            copies = [plain(**{name: getattr(row, name) for name in fields}) for row in objects]
            sharded.objects.bulk_create(objects)
            plain.objects.bulk_create(copies)
        later = models.F("created_at") + timedelta(hours=1)
        for queryset in (Profile.objects.across_shards(), PlainProfile.objects.all()):
            queryset.update(updated_at=later)  # bulk_create sets it to the present

    @classmethod
    def tearDownClass(cls) -> None:
        super().tearDownClass()
        ContentType.objects.clear_cache()  # those that were made here are gone

    def setUp(self) -> None:
        self.clients = {SHARDED: Client(), PLAIN: Client()}  # each with messages of its own
        for client in (self.client, *self.clients.values()):
            client.force_login(self.user)

    def get(self, url: str) -> Any:
        """Compare the pages, and return the sharded one's response."""
        got, expected = (client.get(side.path(url)) for side, client in self.clients.items())
        self.assert_same_response(got, expected)
        return got

    def post(self, url: str, data: Mapping[str, Any]) -> Any:
        """Compare the answers, the rows after, and the history."""
        got, expected = (client.post(side.path(url), data) for side, client in self.clients.items())
        self.assert_same_response(got, expected)
        self.assertEqual(SHARDED.rows(), PLAIN.rows())
        self.assertEqual(_history(SHARDED), _history(PLAIN))
        return got

    def assert_same_response(self, got: Any, expected: Any) -> None:
        self.assertEqual(got.status_code, expected.status_code)
        target, other = got.headers.get("Location", ""), expected.headers.get("Location", "")
        self.assertEqual(SHARDED.neutral(target), PLAIN.neutral(other))
        self.assertEqual(_said(SHARDED, got), _said(PLAIN, expected))
        self.assertEqual(_content(SHARDED, got), _content(PLAIN, expected))


def _said(side: Side, response: Any) -> list[str]:
    return [side.neutral(str(each)) for each in get_messages(response.wsgi_request)]


def _content(side: Side, response: Any) -> list[str]:
    """The page, without the navigation around it, in lines."""
    text = side.neutral(response.content.decode())
    _, _, content = text.partition('id="content"')
    return [line.strip() for line in (content or text).splitlines() if line.strip()]


def _history(side: Side) -> list[tuple[Any, ...]]:
    entries = LogEntry.objects.filter(content_type__app_label=side.app).order_by("pk")
    names = ("object_id", "object_repr", "action_flag", "change_message", "content_type__model")
    rows = entries.values_list(*names)
    return [tuple(side.neutral(str(value)) for value in row) for row in rows]
