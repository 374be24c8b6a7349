"""The site's addresses, and some that each need one database alone."""

from collections.abc import Callable
from uuid import UUID

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path

from config import urls
from sharding.errors import DatabaseUnavailable
from users.services import get_user_from_shard, read_users_with_fallback


def profile(request: HttpRequest, user_id: UUID) -> HttpResponse:
    """Needs the user's shard."""
    return _unless_down(lambda: JsonResponse({"profile": str(get_user_from_shard(user_id))}))


def users(request: HttpRequest) -> HttpResponse:
    """Needs the primary or analytics."""
    return _unless_down(lambda: JsonResponse({"source": read_users_with_fallback(limit=5).source}))


def _unless_down(answer: Callable[[], HttpResponse]) -> HttpResponse:
    try:
        return answer()
    except DatabaseUnavailable as error:
        return JsonResponse({"missing": error.alias}, status=503)


urlpatterns = [
    *urls.urlpatterns,
    path("outage/profiles/<uuid:user_id>", profile),
    path("outage/users", users),
]
