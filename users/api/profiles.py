"""/api/profiles: the profiles of all users, over every shard."""

from typing import Any, ClassVar
from uuid import UUID

from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from users.api.pages import (
    PageQuery,
    beyond,
    page,
    page_schema,
    queried,
    read_cursor,
    read_moment,
)
from users.api.serializers import ProfileSerializer
from users.api.views import ApiView
from users.models import Profile

__all__ = ["ProfilesView"]

# Those that every shard has an index for.
_ORDERINGS = ("-created_at", "created_at")


class ProfilesQuery(PageQuery):
    """The parameters of the list of profiles."""

    country = serializers.RegexField(r"\A[A-Z]{2}\Z", required=False)
    plan = serializers.ChoiceField(Profile.Plan.choices, required=False)
    ordering = serializers.ChoiceField(_ORDERINGS, default=_ORDERINGS[0])


class ProfilesView(ApiView):
    """All profiles. For staff."""

    staff_permissions: ClassVar = {"GET": "users.view_profile"}

    @extend_schema(
        operation_id="profiles_list",
        parameters=[ProfilesQuery],
        responses=page_schema(ProfileSerializer),
    )
    def get(self, request: Request) -> Response:
        """List profiles by the time they were made."""
        query = queried(request, ProfilesQuery)
        ordering = query["ordering"]
        rows = list(self._found(query)[: query["limit"] + 1])
        found = page(
            request,
            rows,
            limit=query["limit"],
            place=lambda profile: [ordering, profile.created_at, profile.pk],
            shown=ProfileSerializer,
        )
        return Response(found)

    def _found(self, query: dict[str, Any]) -> QuerySet[Profile]:
        sign = "-" if query["ordering"].startswith("-") else ""
        given = {name: query[name] for name in ("country", "plan") if name in query}
        found = self.get_queryset().filter(**given).order_by(query["ordering"], f"{sign}user_id")
        place = read_cursor(query.get("cursor"), query["ordering"].__eq__, read_moment, UUID)
        if place is None:
            return found
        ordered, *values = place
        if not ordered:
            raise serializers.ValidationError(
                {"cursor": ["This cursor belongs to another `ordering`. Leave it out."]}
            )
        return found.filter(beyond(["created_at", "user_id"], values, descending=bool(sign)))

    def get_queryset(self) -> QuerySet[Profile]:
        """Return all profiles."""
        return Profile.objects.across_shards()
