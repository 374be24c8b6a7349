"""/api/users/<id>/activities: what a user did, on that user's shard alone."""

from typing import ClassVar
from uuid import UUID

from drf_spectacular.utils import extend_schema
from rest_framework import status
from rest_framework.exceptions import NotFound
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
from users.api.permissions import OwnOrStaff
from users.api.serializers import ActivitySerializer
from users.api.views import ApiView
from users.models import Activity
from users.services import get_user_from_shard

__all__ = ["ActivitiesView"]


class ActivitiesView(ApiView):
    """A user's activities. For the user themself, and for staff."""

    permission_classes = [OwnOrStaff]
    staff_permissions: ClassVar = {"GET": "users.view_activity", "POST": "users.add_activity"}

    @extend_schema(
        operation_id="activities_list",
        parameters=[PageQuery],
        responses=page_schema(ActivitySerializer),
    )
    def get(self, request: Request, user_id: UUID) -> Response:
        """List what the user did, the latest first."""
        query = queried(request, PageQuery)
        rows = Activity.objects.filter(profile=user_id).order_by("-occurred_at", "-id")
        if place := read_cursor(query.get("cursor"), read_moment, UUID):
            rows = rows.filter(beyond(["occurred_at", "id"], place, descending=True))
        some = list(rows[: query["limit"] + 1])
        if not some:
            _require_profile(user_id)
        found = page(
            request,
            some,
            limit=query["limit"],
            place=lambda activity: [activity.occurred_at, activity.pk],
            shown=ActivitySerializer,
        )
        return Response(found)

    @extend_schema(
        operation_id="activities_create",
        request=ActivitySerializer,
        responses={201: ActivitySerializer},
    )
    def post(self, request: Request, user_id: UUID) -> Response:
        """Store something that the user did; `occurred_at` is now unless given."""
        _require_profile(user_id)
        given = ActivitySerializer(data=request.data)
        given.is_valid(raise_exception=True)
        given.save(profile_id=user_id)
        return Response(given.data, status=status.HTTP_201_CREATED)


def _require_profile(user_id: UUID) -> None:
    if get_user_from_shard(user_id) is None:
        raise NotFound
