"""One plain database with all rows, and the comparison of what both sides answer."""

from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from traceback import clear_frames
from typing import Any

from django.db import ProgrammingError, connections, models, transaction
from django.test import TestCase
from hypothesis import given
from hypothesis.strategies import SearchStrategy

from sharding import conf
from sharding.errors import AcrossShardsRefused
from tests.sharding.orm import examples, vocabulary
from tests.sharding.orm.comparing import difference, loaded, same, sort_key
from tests.sharding.orm.data import rows
from users.models import Activity, Profile

__all__ = ["DifferentialTestCase", "Example"]

REFERENCE = "default"
_LARGEST_PART = 0.1


@dataclass(frozen=True, repr=False)
class Example:
    """Python code over P and A, the querysets of all profiles and of all activities.

    Where that leaves the order of some rows open, `keys` names what they are sorted by; with
    `slice`, it is open too which of the rows with the same keys are there.
    """

    code: str
    keys: tuple[str, ...] | None = None
    sliced: bool = False

    def __repr__(self) -> str:
        return self.code if self.keys is None else f"{self.code}  # by {self.keys}"


class DifferentialTestCase(TestCase):
    """Holds the same rows on the shards and, all of them, on the reference."""

    databases = {REFERENCE, *conf.shards()}

    @classmethod
    def setUpTestData(cls) -> None:
        with connections[REFERENCE].schema_editor() as editor:
            for model in (Profile, Activity):
                editor.create_model(model)
                # They would write to tables of the shards.
                editor.execute(f"ALTER TABLE {model._meta.db_table} DISABLE TRIGGER USER")
        pairs: Any = zip((Profile, Activity), rows(), rows(), strict=True)
        for model, stored, copies in pairs:
            model.objects.bulk_create(stored)
            models.QuerySet(model, using=REFERENCE).bulk_create(copies)
        for alias in cls.databases:  # bulk_create set it to the present
            spread = models.functions.Length("bio") * models.Value(timedelta(hours=1))
            models.QuerySet(Profile, using=alias).update(updated_at=models.F("created_at") + spread)

    def setUp(self) -> None:
        self.sharded: dict[str, Any] = {
            "P": Profile.objects.across_shards(),
            "A": Activity.objects.across_shards(),
        }
        self.reference: dict[str, Any] = {
            "P": Profile.objects.using(REFERENCE),
            "A": Activity.objects.using(REFERENCE),
        }
        self.profiles = self.reference["P"].in_bulk()
        self.savepoints = {alias: transaction.savepoint(alias) for alias in self.databases}
        self.answered = 0
        self.refused: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()

    def assert_agreement(self, strategy: SearchStrategy[Example], *, count: int) -> None:
        """Compare the answers to `count` examples, of which at most a tenth may be refused."""

        @examples(count)
        @given(strategy)
        def check(example: Example) -> None:
            self.assert_same_answer(example)

        check()
        for counter in (self.refused, self.failed):
            part = counter.total() / (self.answered + self.refused.total() + self.failed.total())
            self.assertLessEqual(part, _LARGEST_PART, counter.most_common())

    def assert_same_answer(self, example: Example) -> None:
        got = self._answer(example.code, self.sharded)
        if isinstance(got, AcrossShardsRefused):
            self.refused[str(got).partition(" is refused")[0]] += 1
            return
        expected = self._answer(example.code, self.reference)
        failed = isinstance(got, Exception) and type(got) is type(expected)
        # What PostgreSQL does not take as Django writes it leaves nothing to compare with.
        if failed or isinstance(expected, ProgrammingError):
            self.failed[repr(expected)] += 1
            return
        self.answered += 1
        if example.keys is not None and isinstance(got, list) and isinstance(expected, list):
            got, expected = self._keyed(got, example), self._keyed(expected, example)
        if not same(got, expected):
            self.fail(f"{example!r}\n{difference(got, expected)}")

    def _answer(self, code: str, querysets: dict[str, Any]) -> Any:
        """Return what the code returns, or the error that it raises."""
        try:
            return loaded(eval(code, {**vocabulary.NAMES, **querysets}))
        except AcrossShardsRefused as error:
            return error  # before anything was sent
        except Exception as error:
            _release(error)
            self._roll_back()
            return error

    def _roll_back(self) -> None:
        """Make later statements possible after one that failed."""
        for alias, savepoint in self.savepoints.items():
            transaction.set_rollback(False, using=alias)
            transaction.savepoint_rollback(savepoint, using=alias)

    def _keyed(self, answer: list[Any], example: Example) -> list[Any]:
        """Return the keys in order, and the rows in one order that does not depend on theirs."""
        assert example.keys is not None
        keys = [sort_key(row, example.keys, self.profiles) for row in answer]
        return [keys, len(answer) if example.sliced else sorted(answer, key=repr)]


def _release(error: BaseException | None) -> None:
    """Let go of what the error holds: a cursor that is closed after the rollback is not there."""
    while error is not None:
        clear_frames(error.__traceback__)
        error = error.__context__
