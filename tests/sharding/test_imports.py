"""`sharding` can be taken into another project: it names no model or app of this one.

Its imports are held by import-linter; here are the strings, and that it is read before the models.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from django.apps import apps
from django.conf import settings
from django.test import SimpleTestCase

import sharding

FOLDER = Path(sharding.__file__).parent
OTHERS = ("users", "analytics", "config", "tests")
# The role: whatever app is named so in DATABASE_APPS.
ROLE = ("conf.py", "analytics")


def strings(tree: ast.AST) -> Iterator[str]:
    """Every string but the docstrings."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, documented) and node.body and isinstance(node.body[0], ast.Expr)
    }
    constants = (node for node in ast.walk(tree) if isinstance(node, ast.Constant))
    for node in constants:
        if isinstance(node.value, str) and id(node) not in docstrings:
            yield node.value


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


class IndependenceTests(SimpleTestCase):
    def modules(self) -> dict[Path, ast.Module]:
        found = {
            path.relative_to(FOLDER): ast.parse(path.read_text()) for path in FOLDER.rglob("*.py")
        }
        self.assertGreater(len(found), 20)
        return found

    def test_no_import_of_the_others(self) -> None:
        for path, tree in self.modules().items():
            for name in imported(tree):
                self.assertNotIn(name.partition(".")[0], OTHERS, path)

    def test_no_string_names_a_model_or_an_app(self) -> None:
        own = [config for config in apps.get_app_configs() if config.label in OTHERS]
        models = {model._meta for config in own for model in config.get_models()}
        names = {*OTHERS}
        for options in models:
            names |= {
                options.db_table,
                options.label,
                options.label_lower,
                str(options.object_name),
            }
        for path, tree in self.modules().items():
            for text in strings(tree):
                if (str(path), text) != ROLE:
                    self.assertNotIn(text, names, path)
                    self.assertNotIn(text.partition(".")[0], OTHERS, path)

    def test_the_strings_test_sees_strings(self) -> None:
        tree = ast.parse('"doc"\nx = ["users.Profile", f"{y} z"]\ndef f():\n    "doc"\n    "code"')
        self.assertEqual({*strings(tree)}, {"users.Profile", " z", "code"})

    def test_can_be_imported_before_the_models(self) -> None:
        code = "import sys, sharding; sys.exit('sharding.models' in sys.modules)"
        subprocess.run([sys.executable, "-c", code], cwd=settings.BASE_DIR, check=True)

    def test_the_pure_modules_know_no_django(self) -> None:
        # The package itself imports its public surface, so each is asked for its own imports.
        for name in ("hashing", "slots"):
            for module in imported(ast.parse((FOLDER / f"{name}.py").read_text())):
                self.assertNotIn(module.partition(".")[0], ("django", "psycopg"))
