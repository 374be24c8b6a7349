"""A browser, and a site for it to visit: real servers, rows that are committed.

Without Chromium the tests are skipped, or fail where EVERY_PROGRAM says so. Another browser than
the system's is named by CHROMIUM.
"""

import os
import shutil
import sys
from typing import Any
from unittest import SkipTest
from unittest.mock import patch
from urllib.parse import urlparse

from django.contrib.staticfiles.handlers import StaticFilesHandler
from django.db import connections
from django.test import SimpleTestCase, modify_settings
from django.test.testcases import LiveServerThread

from sharding import slot_cache

__all__ = ["HOST", "BrowserTestCase", "chromium", "open_browser"]

HOST = "127.0.0.1"
_DEADLINE = 20_000  # milliseconds
_KEPT = ("django_migrations", "django_content_type", "auth_permission", "sharding_")


def chromium() -> str:
    """Return the browser's path. Raises SkipTest where there is none, and none is required."""
    names = ("chromium", "chromium-browser", "google-chrome")
    found = [os.environ.get("CHROMIUM"), *map(shutil.which, names)]
    if path := next(filter(None, found), None):
        return path
    missing = "There is no Chromium. Install it, e.g. `apt-get install chromium`, or set CHROMIUM."
    if os.environ.get("EVERY_PROGRAM"):
        raise AssertionError(missing)
    print(f"Skipping the tests in a browser. {missing}", file=sys.stderr)
    raise SkipTest(missing)


def open_browser(playwright: Any) -> Any:
    """Start the browser. As root it has no sandbox, nor in most containers enough /dev/shm."""
    arguments = ["--no-sandbox", "--disable-dev-shm-usage"]
    return playwright.chromium.launch(executable_path=chromium(), args=arguments)


@modify_settings(ALLOWED_HOSTS={"append": HOST})
class BrowserTestCase(SimpleTestCase):
    """Has a site at `self.url`, and a browser whose pages may ask no other host."""

    databases = "__all__"
    url: str
    browser: Any
    context: Any

    @classmethod
    def setUpClass(cls) -> None:
        chromium()
        super().setUpClass()
        from playwright.sync_api import sync_playwright  # not where there is no browser

        # Playwright runs a loop in this thread, where Django would refuse every query.
        cls.enterClassContext(patch.dict(os.environ, DJANGO_ALLOW_ASYNC_UNSAFE="1"))
        slot_cache.current()
        cls.addClassCleanup(_empty)
        cls.browser = open_browser(cls.enterClassContext(sync_playwright()))
        cls.addClassCleanup(cls.browser.close)
        cls.url = cls._serve()
        # One for all tests: it keeps the assets, and who is logged in.
        cls.context = cls.browser.new_context(viewport={"width": 1280, "height": 900})
        cls.context.set_default_timeout(_DEADLINE)
        cls.addClassCleanup(cls.context.close)

    @classmethod
    def _serve(cls) -> str:
        server = LiveServerThread(HOST, StaticFilesHandler)
        server.daemon = True
        server.start()
        cls.addClassCleanup(server.join)
        cls.addClassCleanup(server.terminate)
        server.is_ready.wait()
        if server.error:
            raise server.error
        return f"http://{HOST}:{server.port}"

    def setUp(self) -> None:
        self.addCleanup(connections.close_all)
        self.asked: set[str] = set()
        self.errors: list[str] = []
        self.page = self.context.new_page()
        self.addCleanup(self.page.close)
        self.page.on("request", lambda request: self.asked.add(urlparse(request.url).netloc))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", self._hear)

    def _hear(self, message: Any) -> None:
        if "Content Security Policy" in message.text:
            self.errors.append(message.text)

    def assert_sound(self) -> None:
        """Fail if a page asked another host, a script failed, or the browser was not allowed to."""
        self.assertEqual(self.asked - {urlparse(self.url).netloc, ""}, set())
        self.assertEqual(self.errors, [])


def _empty() -> None:
    """Delete every row that tests could have stored, without leaving marks in the change logs."""
    for alias in connections:
        with connections[alias].cursor() as cursor:
            cursor.execute("SELECT tablename FROM pg_tables WHERE schemaname = current_schema()")
            names = sorted(name for (name,) in cursor.fetchall() if not name.startswith(_KEPT))
            logs = [name for name in names if name.endswith("change")]
            for chosen in (names, logs):  # triggers note in the logs that a table was emptied
                if chosen:
                    cursor.execute(f"TRUNCATE {', '.join(chosen)} CASCADE")
    connections.close_all()
