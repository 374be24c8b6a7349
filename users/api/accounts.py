"""/api/users: an account together with its profile."""

from typing import Any, ClassVar
from uuid import UUID

from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework import serializers, status
from rest_framework.exceptions import NotFound
from rest_framework.request import Request
from rest_framework.response import Response

from sharding import conf
from sharding.errors import DatabaseUnavailable
from users.api.logins import PasswordThrottle
from users.api.pages import PageQuery, page, page_schema, queried, read_cursor
from users.api.permissions import OwnOrStaff, require_may_change
from users.api.serializers import (
    AccountSerializer,
    CreateUserSerializer,
    OwnUserSerializer,
    ProfileSerializer,
    StaffUserSerializer,
    SuperuserUserSerializer,
    UserSerializer,
)
from users.api.views import ApiView
from users.fallback import UserRow, UsersRead
from users.models import User
from users.services import (
    create_user,
    delete_user,
    get_user_from_shard,
    read_users_with_fallback,
    update_user,
)

__all__ = ["UserView", "UsersView"]


class UsersQuery(PageQuery):
    """The parameters of the list of users."""

    email = serializers.EmailField(required=False, max_length=254)


class UsersView(ApiView):
    """All accounts. For staff."""

    staff_permissions: ClassVar = {"GET": "users.view_user", "POST": "users.add_user"}

    @extend_schema(
        operation_id="users_list",
        parameters=[UsersQuery],
        responses=page_schema(AccountSerializer),
    )
    def get(self, request: Request) -> Response:
        """List accounts by id. While the primary is down, from copies: see `X-Data-Source`."""
        query = queried(request, UsersQuery)
        after = read_cursor(query.get("cursor"), UUID)
        read = read_users_with_fallback(
            limit=query["limit"] + 1, email=query.get("email"), after=after[0] if after else None
        )
        found = page(
            request,
            read.users,
            limit=query["limit"],
            place=lambda user: [user.id],
            shown=AccountSerializer,
        )
        return Response(found, headers=_source(read))

    @extend_schema(
        operation_id="users_create",
        request=CreateUserSerializer,
        responses={201: UserSerializer},
    )
    def post(self, request: Request) -> Response:
        """Create an account with its profile. Without a password nobody can log in to it."""
        given = CreateUserSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        user = create_user(**given.validated_data)
        return Response(_shown(user), status=status.HTTP_201_CREATED)


class UserView(ApiView):
    """One account with its profile. For the user themself, and for staff."""

    permission_classes = [OwnOrStaff]
    throttle_classes = [*ApiView.throttle_classes, PasswordThrottle]
    staff_permissions: ClassVar = {
        "GET": "users.view_user",
        "PATCH": "users.change_user",
        "DELETE": "users.delete_user",
    }

    @extend_schema(operation_id="users_retrieve", responses=UserSerializer)
    def get(self, request: Request, user_id: UUID) -> Response:
        """Show an account. While the primary is down, from its copy: see `X-Data-Source`."""
        read = read_users_with_fallback(limit=1, user_id=user_id)
        if not read.users:
            raise _missing(read)
        return Response(_shown(read.users[0]), headers=_source(read))

    @extend_schema(
        operation_id="users_update", request=StaffUserSerializer, responses=UserSerializer
    )
    def patch(self, request: Request, user_id: UUID) -> Response:
        """Change the fields that are given; which ones one may set depends on who asks."""
        user = _changeable(request, user_id)
        given = _writer(request, user)(user, data=request.data, partial=True)
        given.is_valid(raise_exception=True)
        return Response(_shown(update_user(user_id, **given.validated_data)))

    @extend_schema(operation_id="users_delete", responses={204: None})
    def delete(self, request: Request, user_id: UUID) -> Response:
        """Delete an account and all that it owns."""
        _changeable(request, user_id)
        if not delete_user(user_id):
            raise NotFound
        return Response(status=status.HTTP_204_NO_CONTENT)


def _missing(read: UsersRead) -> Exception:
    """Return the error for an account that was not found: not copied yet is not nonexistent."""
    if read.source == conf.primary():
        return NotFound()
    return DatabaseUnavailable(
        "The account has no copy, and the primary cannot be reached.", alias=conf.primary()
    )


def _changeable(request: Request, user_id: UUID) -> User:
    user = User.objects.filter(pk=user_id).first()
    if user is None:
        raise NotFound
    require_may_change(request, user)
    return user


def _writer(request: Request, user: User) -> type[OwnUserSerializer]:
    """Return what the user who asks may set."""
    if request.user.is_superuser:
        return SuperuserUserSerializer
    return OwnUserSerializer if request.user == user else StaffUserSerializer


def _shown(user: User | UserRow) -> dict[str, Any]:
    profile = get_user_from_shard(user.id)
    owned = ProfileSerializer(profile).data if profile else None
    return {**AccountSerializer(user).data, "profile": owned}  # type: ignore[arg-type]


def _source(read: UsersRead) -> dict[str, str]:
    """Say where the accounts were read, and how old copies may be."""
    headers = {"X-Data-Source": conf.label(read.source)}
    if read.as_of:
        age = (timezone.now() - read.as_of).total_seconds()
        headers |= {"X-Data-As-Of": read.as_of.isoformat(), "X-Data-Age": f"{age:.0f}"}
    return headers
