"""What a deletion would take with it, for objects of several shards."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

from django.contrib.admin.sites import AdminSite
from django.contrib.admin.utils import get_deleted_objects
from django.http import HttpRequest

from sharding.context import use_shard

__all__ = ["add_deleted", "deleted_rows"]

# As get_deleted_objects gives them: the lines of a nested list, how many of each kind, the kinds
# that the user may not delete, and what is protected.
Preview = tuple[list[Any], dict[str, int], set[str], list[Any]]


def deleted_rows(objects: Iterable[Any], request: HttpRequest, site: AdminSite) -> Preview:
    """Return the preview of deleting these objects, each looked at on the shard it came from."""
    groups: dict[str, list[Any]] = defaultdict(list)
    for each in objects:
        groups[each._state.db].append(each)
    preview: Preview = ([], {}, set(), [])
    for alias, members in sorted(groups.items()):
        with use_shard(alias):
            preview = add_deleted(preview, get_deleted_objects(members, request, site))
    return preview


def add_deleted(one: Preview, other: Preview) -> Preview:
    """Return both previews as one."""
    counts = Counter({str(name): count for name, count in one[1].items()})
    counts.update({str(name): count for name, count in other[1].items()})
    return [*one[0], *other[0]], dict(counts), one[2] | other[2], [*one[3], *other[3]]
