"""What all views of the API have in common."""

from typing import Any, ClassVar

from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from sharding.scope import authenticating
from users.api.authentication import identify, remember
from users.api.permissions import StaffWithPermission

__all__ = ["ApiView"]


class ApiView(APIView):
    """For staff who have the permission that `staff_permissions` names for the method."""

    permission_classes: Any = [StaffWithPermission]
    staff_permissions: ClassVar[dict[str, str]] = {}

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        with authenticating():
            super().initial(request, *args, **kwargs)
        remember(request)

    def perform_authentication(self, request: Request) -> None:
        identify(request)

    def finalize_response(
        self, request: Request, response: Response, *args: Any, **kwargs: Any
    ) -> Response:
        response.headers.setdefault("Cache-Control", "no-store")  # tokens, and people's data
        return super().finalize_response(request, response, *args, **kwargs)
