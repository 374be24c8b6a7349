"""Who may do what: a user their own, staff what their permissions say, superusers everything."""

from collections.abc import Mapping
from typing import Any

from rest_framework.exceptions import NotFound, PermissionDenied
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

__all__ = ["OwnOrStaff", "StaffWithPermission", "require_may_change"]


class StaffWithPermission(BasePermission):
    """Staff who have the permission that the view's `staff_permissions` names for the method."""

    def has_permission(self, request: Request, view: Any) -> bool:
        user = request.user
        if not user.is_authenticated or not user.is_staff:
            return False
        permissions: Mapping[str, str] = view.staff_permissions
        permission = permissions.get(_method(request))
        if permission and not user.has_perm(permission):
            raise PermissionDenied(
                f"This needs the permission {permission}. Somebody who may change users can grant "
                f"it in the admin."
            )
        return True


class OwnOrStaff(StaffWithPermission):
    """The user whose id is in the URL, and staff likewise.

    To others a user who exists looks like one who does not.
    """

    def has_permission(self, request: Request, view: Any) -> bool:
        if not request.user.is_authenticated or request.user.pk == view.kwargs["user_id"]:
            return request.user.is_authenticated
        if not request.user.is_staff:
            raise NotFound
        return super().has_permission(request, view)


def require_may_change(request: Request, user: Any) -> None:
    """Raise PermissionDenied where somebody could take over an account with more rights."""
    if user == request.user or request.user.is_superuser:
        return
    if user.is_staff or user.is_superuser:
        raise PermissionDenied("Only superusers may change other members of the staff.")


def _method(request: Request) -> str:
    return "GET" if request.method in ("HEAD", "OPTIONS") else request.method or "GET"
