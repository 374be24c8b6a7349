"""The sample brought into an empty installation, with an administrator to look at it."""

import secrets
from dataclasses import dataclass
from pathlib import Path

from users.importing import Options, Totals, import_users
from users.models import User
from users.seeding import Seeded, seed_activities

__all__ = ["ADMIN", "FILE", "Loaded", "load_sample"]

ADMIN = "admin@example.com"
FILE = Path(__file__).parent / "users.csv"


@dataclass
class Loaded:
    """What was loaded, and the new administrator's password, which is stored nowhere in clear."""

    users: Totals
    activities: Seeded
    password: str


def load_sample(*, show_progress: bool = False) -> Loaded | None:
    """Load the users, their activities and last an administrator; None if there was one before.

    Broken off anywhere, it goes on when called again. Raises ImportFailed, Django's database
    errors, and ValueError where ADMIN is the email of somebody else.
    """
    if User.objects.filter(is_superuser=True).exists():
        return None
    if User.objects.filter(email=ADMIN).exists():
        raise ValueError(f"{ADMIN} is the email of a user without rights: run createsuperuser.")
    users = import_users(str(FILE), Options(show_progress=show_progress))
    activities = seed_activities()
    password = secrets.token_urlsafe(12)
    User.objects.create_superuser(ADMIN, password, name="Administrator")
    return Loaded(users, activities, password)
