"""docs/dependencies.md says of every requirement what it is for."""

import re

from django.conf import settings
from django.test import SimpleTestCase

FILES = ("requirements.txt", "requirements-dev.txt", "requirements-bench.txt")
_PINNED = re.compile(r"([A-Za-z0-9-]+)(\[[a-z,-]+\])?==\d[\w.]*")


def requirements(file: str) -> set[str]:
    lines = (settings.BASE_DIR / file).read_text().splitlines()
    matches = [_PINNED.fullmatch(line) for line in lines if line and line[0] not in "#-"]
    return {match[1] if match else "not pinned" for match in matches}


class DependencyTests(SimpleTestCase):
    def test_each_requirement_is_pinned_and_explained(self):
        text = (settings.BASE_DIR / "docs" / "dependencies.md").read_text()
        first_cells = re.findall(r"^\| ([^|]+) \|", text, re.MULTILINE)
        named = {name.split("[")[0] for cell in first_cells for name in cell.split(", ")}
        self.assertEqual(
            named - {"package", "---"},
            {name for file in FILES for name in requirements(file)},
        )
