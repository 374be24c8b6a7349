"""When two answers are the same. Of model objects, all that was loaded counts."""

from collections.abc import Mapping, Sequence
from math import isclose, isnan
from typing import Any

from django.db import models

__all__ = ["difference", "loaded", "same", "sort_key"]

# Of floats. Which rows were added first decides the last digits, also of what should be 0.
_TOLERANCE = 1e-12


def loaded(value: Any, seen: set[int] | None = None) -> Any:
    """Return plain values in place of model objects, the related ones that are cached included.

    What an object is related to is told once, where the object comes first.
    """
    seen = set() if seen is None else seen
    if isinstance(value, models.Model):
        return _loaded_object(value, seen)
    if isinstance(value, Mapping):
        return {key: loaded(each, seen) for key, each in value.items()}
    if isinstance(value, list):
        return [loaded(each, seen) for each in value]
    return value


def _loaded_object(instance: models.Model, seen: set[int]) -> dict[str, Any]:
    values = {"": type(instance).__name__, **vars(instance)}
    lists = {name: loaded(each, seen) for name, each in values.items() if isinstance(each, list)}
    values |= lists  # of Prefetch(…, to_attr=…)
    related = dict(values.pop("_state").fields_cache)
    for name, queryset in values.pop("_prefetched_objects_cache", {}).items():
        related[f"all {name}"] = list(queryset)
    if id(instance) not in seen:
        seen.add(id(instance))
        values |= {f"related {name}": loaded(each, seen) for name, each in related.items()}
    return values


def same(one: Any, other: Any) -> bool:
    """Say whether two answers are the same: of the same types, floats up to 12 digits."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float):
        return isclose(one, other, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE) or (
            isnan(one) and isnan(other)
        )
    return one == other


def sort_key(row: Any, names: Sequence[str], related: Mapping[Any, Any]) -> list[Any]:
    """What a row is sorted by; `profile__…` is looked up in `related`."""
    return [
        row[name] if name in row else _related(name, related[row["profile_id"]]) for name in names
    ]


def _related(name: str, profile: Any) -> Any:
    return profile.pk if name == "profile" else getattr(profile, name.removeprefix("profile__"))


def difference(one: Any, other: Any) -> str:
    """Describe where two answers differ."""
    if isinstance(one, list) and isinstance(other, list):
        for index, (left, right) in enumerate(zip(one, other, strict=False)):
            if not same(left, right):
                return (
                    f"row {index} of {len(one)} is\n  {left}, of {len(other)} should be\n  {right}"
                )
        return f"{len(one)} rows, should be {len(other)}: {one[len(other) :] or other[len(one) :]}"
    return f"{one!r}\nshould be\n{other!r}"
