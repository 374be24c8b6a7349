"""A shard that dies while its rows are committed: nobody knows, and nobody is told that they do."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch
from uuid import UUID

from django.contrib.admin.models import LogEntry
from django.contrib.messages import get_messages
from django.contrib.sessions.models import Session
from django.db import close_old_connections
from django.test import Client
from django.urls import reverse

from config.embedded import Cluster
from tests.outage import migrated_servers
from tests.sharding.admin.test_differential import inline, profile_form
from tests.sharding.methods.world import BOB, CommittedWorldTestCase
from tests.support import fenced
from users.admin import ProfileAdmin
from users.models import Profile, User

DOWN = "shard_2"


class CommitTests(CommittedWorldTestCase):
    servers: Cluster

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.servers = cls.enterClassContext(migrated_servers(DOWN))

    def setUp(self) -> None:
        super().setUp()
        for module in ("outage", "site"):
            self.enterContext(patch(f"sharding.admin.{module}.logger"))
        Profile.objects.create(user_id=BOB, display_name="Bob")
        user = User.objects.create_superuser("admin@example.com", id=UUID(int=4 << 76))
        self.addCleanup(Session.objects.all().delete)
        self.addCleanup(user.delete)
        self.client = Client()
        self.client.force_login(user)

    def dying(self) -> Any:
        """Let the shard die when all is done but the commit."""
        original = ProfileAdmin.writing

        @contextmanager
        def writing(*args: Any) -> Iterator[None]:
            with original(*args):
                yield
                self.servers.kill(DOWN)

        return patch.object(ProfileAdmin, "writing", writing)

    def test_says_neither_that_it_was_saved_nor_that_it_was_not(self) -> None:
        url = reverse("admin:users_profile_delete", args=[BOB])
        with self.dying():
            response = self.client.post(url, {"post": "yes"}, follow=True)
        self.assertContains(response, "shard_2 was lost while this was being saved")
        self.assertNotContains(response, "successfully")
        self.assertFalse(LogEntry.objects.exists())
        self.servers.start()
        close_old_connections()
        self.enterContext(self.assertLogs("django.request"))
        form = profile_form(display_name="Robert") | inline(initial=0)
        with self.dying():
            url = reverse("admin:users_profile_change", args=[BOB])
            response = self.client.post(url, form)
        self.assertContains(response, "Send it again", status_code=503)
        self.assertNotContains(response, "successfully", status_code=503)
        self.assertFalse(LogEntry.objects.exists())


class MoveTests(CommittedWorldTestCase):
    def test_a_change_waits_until_its_rows_have_moved(self) -> None:
        user = User.objects.create_superuser("admin@example.com", id=UUID(int=4 << 76))
        for rows in (Session.objects.all(), LogEntry.objects.all()):
            self.addCleanup(rows.delete)
        self.addCleanup(user.delete)
        self.client.force_login(user)
        with ExitStack() as move:
            move.enter_context(fenced(BOB))
            self.enterContext(patch("sharding.slot_cache.pause", move.close))
            url = reverse("admin:users_profile_change", args=[BOB])
            response = self.client.post(url, profile_form(plan="team") | inline(initial=0))
        self.assertEqual(response.status_code, 302)
        self.assertEqual(Profile.objects.get(pk=BOB).plan, "team")
        self.assertEqual(len(get_messages(response.wsgi_request)), 1)
        self.assertEqual(LogEntry.objects.count(), 1)
