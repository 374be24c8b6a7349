"""Comparing rows on two servers by hashes of groups of them: one scan of each, no rows sent."""

from collections.abc import Hashable, Mapping
from contextlib import ExitStack
from typing import TypeVar

from django.db import connections, transaction

from sharding.orm.scatter import Statement, named, scatter

__all__ = ["Hashes", "differences", "hashes"]

Group = TypeVar("Group", bound=Hashable)
Hashes = dict[Group, tuple[int, int]]  # number of rows, xor of their hashes


def hashes(asked: Mapping[str, Statement], *, settings: str) -> list[Hashes]:
    """Run each alias's statement under settings of its own transaction, all at the same time.

    A statement answers group, number and hash of its rows. Each row is to be hashed with its key,
    so that no two of them cancel each other out.
    """
    with ExitStack() as stack:
        for alias in asked:
            stack.enter_context(transaction.atomic(using=alias))
            with named(alias), connections[alias].cursor() as cursor:
                cursor.execute(settings)
        answers, _ = scatter(asked)
        return [
            {group: (count, hashed) for group, count, hashed in answers[alias]} for alias in asked
        ]


def differences(here: Mapping[Group, object], there: Mapping[Group, object]) -> set[Group]:
    """Return what only one side has, or the two with different hashes."""
    return {group for group in here.keys() | there.keys() if here.get(group) != there.get(group)}
