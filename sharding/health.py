"""Which databases can be used at this moment."""

from collections.abc import Iterable

from django.db import OperationalError, connections

__all__ = ["unreachable"]


def unreachable(aliases: Iterable[str] = ()) -> list[str]:
    """Return those of the aliases, all unless given, to which this process can send nothing."""
    return [alias for alias in tuple(aliases) or tuple(connections) if not _is_usable(alias)]


def _is_usable(alias: str) -> bool:
    try:
        with connections[alias].cursor() as cursor:
            cursor.execute("SELECT 1")
    except OperationalError:
        return False
    return True
