"""Tests of the sharded ORM: what it answers is compared with one database that holds all rows."""

import os

from hypothesis import HealthCheck, Phase, settings

__all__ = ["examples"]

_SOAK = 50 if os.environ.get("SOAK") else 1


def examples(count: int) -> settings:
    """Settings of a property with `count` examples: the same in every run, unless SOAK is set.

    SOAK takes 50 times as many, and others each time.
    """
    return settings(
        max_examples=count * _SOAK,
        derandomize=_SOAK == 1,
        deadline=None,
        database=None,
        phases=[phase for phase in Phase if phase != Phase.explain],  # which takes very long
        suppress_health_check=[HealthCheck.too_slow],
    )
