"""The rows of both sides of a comparison: few values, so that there are many ties, all awkward."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Any
from uuid import UUID

from users.models import Activity, Profile

__all__ = [
    "ACTIVITY_IDS",
    "AMOUNTS",
    "COUNTRIES",
    "KINDS",
    "MOMENTS",
    "NAMES",
    "PROFILE_IDS",
    "rows",
]

NAMES = [
    *("", " ", "a", "A", "b", "Zoé", "zoe", "Zoë", "Ångström", "éclair", "Straße", "STRASSE"),
    *(
        "İstanbul",
        "ǅ",
        "日本",
        "😀",
        "👩‍🚀 Ada",
        "\uffee",
        "a b",
        "a\tb",
        "100%",
        "a_b",
        "back\\slash",
    ),
    *("O'Neil", '"quoted"', "e\u0301clair", "10", "9", "-1"),
]
COUNTRIES = ["", "CH", "DE", "FR", "ch"]
_PLANS = ["free", "pro", "team"]
KINDS = ["login", "Login", "purchase", "été", "", "50% off", "😀", "log\\in"]
_NICKS = ["neo", "Neo", "", "ñ", None]
MOMENTS = [
    datetime(2023, 12, 31, 23, 30, tzinfo=UTC),
    datetime(2024, 1, 1, 0, 30, tzinfo=UTC),
    datetime(2024, 2, 29, 12, tzinfo=UTC),
    datetime(2024, 3, 31, 1, 30, 0, 123456, tzinfo=UTC),  # when summer time begins
    datetime(2024, 10, 27, 0, 59, 59, tzinfo=UTC),
    datetime(2025, 6, 15, 8, 15, tzinfo=UTC),
]
AMOUNTS = [
    Decimal(text)
    for text in (
        *("0.00", "-0.01", "0.01", "1.00", "1.50", "2.50", "3.33", "10.00", "-10.00", "99.99"),
        *("9999999999.99", "-9999999999.99", "123456.78"),
    )
]

_PROFILES = 60
_ACTIVITIES = 200


def rows() -> tuple[list[Profile], list[Activity]]:
    """New objects of the same rows each time. A quarter of the profiles have no activities."""
    random = Random(3)
    profiles = [_profile(random) for _ in range(_PROFILES)]
    active = profiles[: _PROFILES * 3 // 4]
    return profiles, [_activity(random, active) for _ in range(_ACTIVITIES)]


def _uuid(random: Random) -> UUID:
    return UUID(int=random.getrandbits(128), version=4)


def _profile(random: Random) -> Profile:
    moment = random.choice(MOMENTS)
    return Profile(
        user_id=_uuid(random),
        display_name=random.choice(NAMES),
        country=random.choice(COUNTRIES),
        plan=random.choice(_PLANS),
        bio=random.choice(NAMES) * random.randrange(4),
        settings=_json(random, nick=_NICKS, level=[*range(5), None], score=[0.5, -1.25, 3.1, 1e9]),
        created_at=moment,
        updated_at=moment + timedelta(hours=random.randrange(4)),
    )


def _activity(random: Random, profiles: list[Profile]) -> Activity:
    # Some profiles have many, some few.
    owner = profiles[int(random.random() ** 2 * len(profiles))]
    return Activity(
        id=_uuid(random),
        profile_id=owner.user_id,
        kind=random.choice(KINDS),
        amount=random.choice(AMOUNTS),
        payload=_json(random, tag=_NICKS, n=[1, 2, 3, None], ratio=[0.1, 0.2, 1 / 3, 1e-9]),
        occurred_at=random.choice(MOMENTS),
    )


def _json(random: Random, **choices: list[Any]) -> dict[str, Any]:
    """An object with a value for some of the names: the others are missing."""
    return {
        name: random.choice(values) for name, values in choices.items() if random.random() < 0.7
    }


PROFILE_IDS, ACTIVITY_IDS = ([row.pk for row in each] for each in rows())
