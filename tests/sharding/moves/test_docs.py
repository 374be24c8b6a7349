"""docs/resharding.md has every state, and every refusal of the code with what to do."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from unittest import TestCase

from sharding.models import Move
from sharding.models.owned import SlotOwner
from sharding.moves import prechecks

ROOT = Path(__file__).resolve().parents[3]
DOCS = (ROOT / "docs" / "resharding.md").read_text()
REFUSING = {"MoveFailed", "MoveOvertaken", "MoveRefused", "TooSlow", "WrongDatabase"}
FILES = ("moves/*.py", "identity.py", "ownership.py", "bootstrap.py", "migrating.py")
FINDING = {"leftovers.py", "checking.py", "status.py"}  # which say what to do themselves
# Those of a request that makes no sense say all there is to say.
IN_ITSELF = (
    "none to go on with",
    "No shard would be left",
    "only way is forward",
    "owns these slots already",
    "went on to its end",
)


def text_of(node: ast.AST) -> str:
    """The fixed parts of a text, with … for the others."""
    if isinstance(node, ast.JoinedStr):
        return "".join(map(text_of, node.values))
    return str(node.value) if isinstance(node, ast.Constant) else "…"


def refusals() -> Iterator[str]:
    """The texts of what is raised, and of what prechecks yield and the identity check returns."""
    for path in (path for pattern in FILES for path in (ROOT / "sharding").glob(pattern)):
        for node in ast.walk(ast.parse(path.read_text())):
            text: ast.AST | None = None
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in REFUSING:
                text = node.args[0]
            elif isinstance(node, ast.Yield | ast.Return) and path.name not in FINDING:
                text = node.value
            if isinstance(text, ast.JoinedStr) and " " in text_of(text):
                yield text_of(text)


def every_text() -> str:
    trees = (ast.parse(path.read_text()) for path in (ROOT / "sharding").rglob("*.py"))
    nodes = (node for tree in trees for node in ast.walk(tree))
    return "\n".join(text_of(n) for n in nodes if isinstance(n, ast.JoinedStr | ast.Constant))


def cells(part: str) -> set[str]:
    """What the first column of a part's tables has; a slash parts several in one cell."""
    found = re.findall(r"^\| ([^|]+) \|", part, re.MULTILINE)
    return {each for cell in found for each in cell.split(" / ")} - {"---", "state", "it says"}


def phrases() -> set[str]:
    found = cells(DOCS.partition("## Refusals")[2])
    return {part.removesuffix(" (by `migrate`)").replace("shard_3", "…") for part in found}


def says(message: str, phrase: str) -> bool:
    return re.search(".*".join(map(re.escape, phrase.split("…"))), message) is not None


class DocsTests(TestCase):
    def test_every_refusal_is_there(self) -> None:
        known = {*phrases(), *IN_ITSELF}
        for message in refusals():
            with self.subTest(message):
                self.assertTrue(any(says(message, phrase) for phrase in known))

    def test_none_that_the_code_does_not_know(self) -> None:
        texts = every_text()
        for phrase in phrases():
            with self.subTest(phrase):
                self.assertTrue(says(texts, phrase))

    def test_every_state_is_there(self) -> None:
        table = DOCS.partition("## The states of a move")[2].partition("\n## ")[0]
        self.assertEqual(cells(table), {*Move.State.values})
        for state in SlotOwner.State.values:
            self.assertIn(f"*{state}*", DOCS)

    def test_every_precheck_is_made(self) -> None:
        tree = ast.parse(Path(prechecks.__file__).read_text())
        functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
        written = {f.name for f in functions if getattr(f.returns, "id", "") == "Problems"}
        groups = (prechecks._REACHABLE, prechecks._ITSELF, prechecks._SET_UP, prechecks._READY)
        made = {check.__name__ for group in groups for check in group}
        self.assertEqual(written - made, {"_request", "_through_pooler", "_other_move"})
