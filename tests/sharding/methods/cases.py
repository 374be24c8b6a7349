"""A call of every method in the table that reads or writes, to be compared with one database.

Each takes a queryset or manager, and the names of fields of its model. Nothing but the method
itself is called on what is given: the same cases run their async twins.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from asgiref.sync import async_to_sync
from django.db.models import Count, F, Max
from django.db.models.functions import Upper

from tests.sharding.methods.world import BOB, CY, EVE, FREE_ID, JOINED
from users.models import Activity, Profile

__all__ = ["ACTIVITY", "LAZY", "PROFILE", "READS", "REFUSED", "ROUTED", "TWINS", "WRITES", "Fields"]


@dataclass(frozen=True)
class Fields:
    """What the cases need to know of a model."""

    model: Any
    text: str
    value: str
    other: str
    moment: str
    related: str
    key: str

    new: dict[str, Any]  # the values of a new object, on shard_2


PROFILE = Fields(
    Profile, "plan", "free", "team", "created_at", "activities", "user_id", {"user_id": FREE_ID}
)
ACTIVITY = Fields(
    Activity, "kind", "order", "login", "occurred_at", "profile", "profile", {"profile_id": EVE}
)

Case = Callable[[Any, Fields], Any]

LAZY: dict[str, Case] = {
    "alias": lambda q, f: q.alias(loud=Upper(f.text)).filter(loud=f.value.upper()),
    "all": lambda q, f: q.all(),
    "annotate": lambda q, f: q.annotate(loud=Upper(f.text)).values_list("pk", "loud"),
    "complex_filter": lambda q, f: q.complex_filter({f.text: f.value}),
    "dates": lambda q, f: q.dates(f.moment, "day", "DESC"),
    "datetimes": lambda q, f: q.datetimes(f.moment, "hour"),
    "defer": lambda q, f: q.defer(f.text, f.key),
    "distinct": lambda q, f: q.distinct().values_list(f.text).order_by(f.text),
    "exclude": lambda q, f: q.exclude(**{f.text: f.other}),
    "filter": lambda q, f: q.filter(**{f.text: f.value}),
    "none": lambda q, f: q.none(),
    "only": lambda q, f: q.only(f.text),
    "order_by": lambda q, f: q.order_by(f.text, "-" + f.moment),
    "prefetch_related": lambda q, f: q.prefetch_related(f.related),
    "reverse": lambda q, f: q.reverse(),
    "select_related": lambda q, f: q.select_related(*[f.related] * (f is ACTIVITY)),
    "values": lambda q, f: q.values(f.text, f.moment),
    "values_list": lambda q, f: q.values_list(f.text).annotate(n=Count("pk")).order_by(f.text),
}

READS: dict[str, Case] = {
    "aggregate": lambda q, f: q.aggregate(Count("pk"), last=Max(f.moment)),
    "count": lambda q, f: q.count(),
    "earliest": lambda q, f: q.earliest(f.moment),
    "exists": lambda q, f: q.exists(),
    "first": lambda q, f: q.first(),
    "get": lambda q, f: q.get(**{f.moment: JOINED[BOB]}),
    "in_bulk": lambda q, f: q.in_bulk(),
    "iterator": lambda q, f: list(q.iterator(chunk_size=2)),
    "last": lambda q, f: q.last(),
    "latest": lambda q, f: q.latest(f.moment),
}

WRITES: dict[str, Case] = {
    "bulk_create": lambda q, f: len(q.bulk_create([f.model(**f.new, **{f.text: "new"})])),
    "delete": lambda q, f: q.delete(),
    "update": lambda q, f: q.update(**{f.text: "new", f.moment: F(f.moment)}),
}

# Called of profiles: what it returns, and on which shard.
ROUTED: dict[str, tuple[Callable[[Any], Any], Any, str]] = {
    "contains": (lambda q: q.contains(Profile(pk=BOB)), True, "shard_2"),
    "create": (lambda q: q.create(user_id=FREE_ID, plan="pro").plan, "pro", "shard_2"),
    "get_or_create": (lambda q: q.get_or_create(user_id=CY)[1], False, "shard_3"),
    "update_or_create": (lambda q: q.update_or_create(user_id=FREE_ID)[1], True, "shard_2"),
}

REFUSED: dict[str, Case] = {
    "difference": lambda q, f: q.difference(q.filter(**{f.text: f.value})),
    "extra": lambda q, f: q.extra(where=[f"{f.text} = %s"], params=[f.value]),
    "intersection": lambda q, f: q.intersection(q.filter(**{f.text: f.value})),
    "select_for_update": lambda q, f: q.select_for_update(),
    "union": lambda q, f: q.union(q.filter(**{f.text: f.value})),
}


class Twin:
    """Calls the async twins of a queryset's or manager's methods, and waits for them."""

    def __init__(self, queryset: Any) -> None:
        self._queryset = queryset

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._queryset, f"a{name}")
        return lambda *args, **kwargs: async_to_sync(_finished)(method(*args, **kwargs))


# How to name and how to call each method: itself, and its async twin.
TWINS: list[tuple[str, Callable[[Any], Any]]] = [("", lambda queryset: queryset), ("a", Twin)]


async def _finished(made: Any) -> Any:
    return [row async for row in made] if hasattr(made, "__aiter__") else await made
