"""Settings read in processes of their own, under an environment that the test gives."""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from django.conf import settings
from django.test import SimpleTestCase

__all__ = ["SettingsTestCase", "run"]

SHOW = """
import json, sys
from config import settings
print(json.dumps([getattr(settings, name, None) for name in sys.argv[1:]]))
"""


def run(
    *command: str, environ: dict[str, str] | None = None, folder: Path = settings.BASE_DIR
) -> subprocess.CompletedProcess[str]:
    """Run Python in the project with no variables but these."""
    return subprocess.run(
        [sys.executable, "-B", *command],
        cwd=folder,
        env={"PYTHONPATH": str(folder), **(environ or {})},
        capture_output=True,
        text=True,
        check=False,
    )


class SettingsTestCase(SimpleTestCase):
    """Works on a copy of config/: a developer's own .env must not change what the tests see."""

    folder: Path

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.folder = Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        for name in ("config", "sharding", "users", "analytics"):
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(settings.BASE_DIR / name, cls.folder / name, ignore=ignored)
        shutil.copy(settings.BASE_DIR / "manage.py", cls.folder)

    def read(self, environ: dict[str, str], *names: str) -> list[Any]:
        done = run("-c", SHOW, *names, environ=environ, folder=self.folder)
        self.assertEqual(done.returncode, 0, done.stderr)
        values: list[Any] = json.loads(done.stdout)
        return values

    def refuses(self, environ: dict[str, str], *texts: str) -> None:
        done = run("-c", SHOW, environ=environ, folder=self.folder)
        self.assertNotEqual(done.returncode, 0)
        for text in texts:
            self.assertIn(text, done.stderr)
        self.assertNotIn("hunter2", done.stderr)

    def manage(self, *arguments: str, environ: dict[str, str]) -> str:
        done = run("manage.py", *arguments, environ=environ, folder=self.folder)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done.stdout + done.stderr
