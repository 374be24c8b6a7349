"""Invents the users of users.csv: `python -m users.sample.generate > users/sample/users.csv`.

Seeded: every run makes the same people with the same ids, as long as Faker keeps its names. Faker
is a requirement of development only; using the file needs none.
"""

import csv
import json
import random
import re
import sys
import unicodedata
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from typing import NamedTuple, TextIO, TypeVar
from uuid import UUID

from faker import Faker

__all__ = ["COLUMNS", "people", "write"]

USERS = 5_000
SEED = 20261101
END = date(2026, 11, 1)
DAYS = 2 * 365

COLUMNS = (
    "id",
    "email",
    "name",
    "is_active",
    "date_joined",
    "last_login",
    "display_name",
    "country",
    "plan",
    "bio",
    "settings",
)


_T = TypeVar("_T")


class Place(NamedTuple):
    """Where people come from: Faker's locale, the country's code, its share, its time zone."""

    locale: str
    country: str
    weight: int
    zone: str


_PLACES = (
    Place("en_US", "US", 220, "America/New_York"),
    Place("en_GB", "GB", 90, "Europe/London"),
    Place("en_IN", "IN", 50, "Asia/Kolkata"),
    Place("hi_IN", "IN", 30, "Asia/Kolkata"),
    Place("de_DE", "DE", 100, "Europe/Berlin"),
    Place("de_AT", "AT", 20, "Europe/Vienna"),
    Place("fr_FR", "FR", 70, "Europe/Paris"),
    Place("fr_CH", "CH", 25, "Europe/Zurich"),
    Place("es_ES", "ES", 45, "Europe/Madrid"),
    Place("es_MX", "MX", 35, "America/Mexico_City"),
    Place("pt_BR", "BR", 60, "America/Sao_Paulo"),
    Place("it_IT", "IT", 40, "Europe/Rome"),
    Place("pl_PL", "PL", 35, "Europe/Warsaw"),
    Place("cs_CZ", "CZ", 20, "Europe/Prague"),
    Place("nl_NL", "NL", 25, "Europe/Amsterdam"),
    Place("sv_SE", "SE", 20, "Europe/Stockholm"),
    Place("tr_TR", "TR", 30, "Europe/Istanbul"),
    Place("uk_UA", "UA", 25, "Europe/Kyiv"),
    Place("el_GR", "GR", 15, "Europe/Athens"),
    Place("ar_AA", "EG", 20, "Africa/Cairo"),
    Place("he_IL", "IL", 15, "Asia/Jerusalem"),
    Place("ja_JP", "JP", 60, "Asia/Tokyo"),
    Place("zh_CN", "CN", 40, "Asia/Shanghai"),
    Place("zh_TW", "TW", 20, "Asia/Taipei"),
    Place("ko_KR", "KR", 35, "Asia/Seoul"),
    Place("vi_VN", "VN", 20, "Asia/Ho_Chi_Minh"),
)
_PLANS = {"free": 72, "pro": 21, "team": 7}
_DOMAINS = {"example.com": 6, "example.org": 3, "example.net": 2}
_WEEK = (1.25, 1.3, 1.2, 1.15, 1.0, 0.55, 0.6)  # signing up, Monday to Sunday
_HOURS = (2, 1, 1, 1, 1, 2, 4, 7, 10, 12, 12, 11, 11, 12, 12, 11, 10, 9, 9, 10, 10, 8, 6, 4)
_GROWTH = 3.0  # as many sign-ups a day at the end as at the beginning


def people(number: int = USERS, seed: int = SEED) -> Iterator[dict[str, str]]:
    """Yield as many people as rows of the file, in the order in which they joined."""
    chance = random.Random(seed)  # noqa: S311  repeatable, and no secret
    fakers = {place.locale: _faker(place.locale, chance) for place in _PLACES}
    taken: dict[str, int] = {}
    for joined in sorted(_moment(chance) for _ in range(number)):
        place = _pick(chance, {place: place.weight for place in _PLACES})
        yield _person(place, fakers[place.locale], joined, chance, taken)


def write(file: TextIO) -> None:
    """Write the whole file."""
    writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(people())


def _faker(locale: str, chance: random.Random) -> Faker:
    faker = Faker(locale)
    faker.seed_instance(chance.getrandbits(64))
    return faker


def _pick(chance: random.Random, weights: dict[_T, int]) -> _T:
    return chance.choices(list(weights), list(weights.values()))[0]


def _person(
    place: Place, faker: Faker, joined: datetime, chance: random.Random, taken: dict[str, int]
) -> dict[str, str]:
    # Without titles ("Dr."), which would be the first name of many.
    name = " ".join(word for word in faker.name().split() if "." not in word)
    plan = _pick(chance, _PLANS)
    values = {
        "id": UUID(int=chance.getrandbits(128), version=4),
        "email": _email(name, faker, chance, taken),
        "name": name,
        "is_active": str(chance.random() > 0.06).lower(),
        "date_joined": joined.isoformat(),
        "last_login": _last_login(joined, chance),
        "display_name": _display_name(name, chance),
        "country": place.country if chance.random() > 0.04 else "",
        "plan": plan,
        "bio": _bio(faker, chance),
        "settings": json.dumps(_settings(place, plan, chance), ensure_ascii=False),
    }
    return {column: str(values[column]) for column in COLUMNS}


def _moment(chance: random.Random) -> datetime:
    """Choose when somebody joins: more at the end, on weekdays, by day."""
    while True:
        day = chance.randrange(DAYS)
        joined = END - timedelta(days=DAYS - day)
        weight = (1 + (_GROWTH - 1) * day / DAYS) * _WEEK[joined.weekday()]
        if chance.random() * _GROWTH * max(_WEEK) < weight:
            break
    (hour,) = chance.choices(range(24), _HOURS)
    clock = time(hour, chance.randrange(60), chance.randrange(60), tzinfo=UTC)
    return datetime.combine(joined, clock)


def _last_login(joined: datetime, chance: random.Random) -> str:
    if chance.random() < 0.12:
        return ""
    end = datetime.combine(END, time(), UTC)
    # The exponent: most were here lately, whenever they joined.
    passed = (end - joined) * chance.random() ** 0.4
    return (joined + passed).replace(microsecond=0).isoformat()


def _email(name: str, faker: Faker, chance: random.Random, taken: dict[str, int]) -> str:
    local = _slug(name) or _slug(faker.user_name()) or "user"
    address = f"{local}@{_pick(chance, _DOMAINS)}"
    taken[address] = taken.get(address, 0) + 1
    # No dot or letter before the number, so no other name can give the same address.
    return address if taken[address] == 1 else address.replace("@", f"+{taken[address]}@")


def _slug(name: str) -> str:
    """Spell a name in the characters of an address; empty where its script has none of them."""
    spelled = unicodedata.normalize("NFKD", name.translate(_SPELLED))
    plain = spelled.encode("ascii", "ignore").decode().lower()
    words = re.findall(r"[a-z]+", plain)
    return ".".join(words) if len(plain.replace(" ", "")) > 3 else ""


_SPELLED = str.maketrans({"ß": "ss", "ø": "o", "ł": "l", "Ł": "L", "ı": "i", "đ": "d", "Đ": "D"})


def _display_name(name: str, chance: random.Random) -> str:
    return _pick(chance, {name: 55, name.split(" ")[0]: 25, "": 20})


def _bio(faker: Faker, chance: random.Random) -> str:
    sentences = faker.sentences(_pick(chance, {0: 45, 1: 30, 2: 18, 3: 7}))
    bio = chance.choice([" ", " ", "\n"]).join(sentences)
    return f"“{bio}”" if bio and chance.random() < 0.05 else bio


def _settings(place: Place, plan: str, chance: random.Random) -> dict[str, object]:
    settings: dict[str, object] = {
        "theme": _pick(chance, {"light": 5, "dark": 4, "system": 6}),
        "language": place.locale.partition("_")[0],
        "timezone": place.zone,
        "newsletter": chance.random() < 0.35,
        "notifications": {"email": chance.random() < 0.8, "push": chance.random() < 0.4},
    }
    if plan == "team":
        settings["seats"] = chance.choice([3, 5, 5, 10, 25])
    kept = [key for key in settings if key == "seats" or chance.random() < 0.6]
    return {key: settings[key] for key in kept}


if __name__ == "__main__":
    sys.stdout.reconfigure(encoding="utf-8", newline="")  # type: ignore[union-attr]
    write(sys.stdout)
