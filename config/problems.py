"""How the site answers when something fails: RFC 9457 problem details, each with what to do.

The API and everything else below /api answer so; other pages say the same in plain words.
"""

import logging
import sys
from http import HTTPStatus
from typing import Any

from django.core.exceptions import ObjectDoesNotExist, RequestDataTooBig
from django.core.exceptions import ValidationError as DjangoValidationError
from django.db import DataError, IntegrityError, OperationalError
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils.deprecation import MiddlewareMixin
from django.views import defaults
from rest_framework import status
from rest_framework.exceptions import APIException, ValidationError
from rest_framework.response import Response
from rest_framework.views import exception_handler, set_rollback

from sharding import conf
from sharding.errors import (
    AcrossShardsRefused,
    DatabaseUnavailable,
    InvalidShardKey,
    OutsideAnalytics,
    ShardingError,
    ShardKeyChanged,
    ShardKeyRequired,
)

__all__ = [
    "CONTENT_TYPE",
    "ProblemsMiddleware",
    "answer",
    "bad_request",
    "not_found",
    "problem",
    "respond",
    "server_error",
]

logger = logging.getLogger(__name__)

CONTENT_TYPE = "application/problem+json"
_RETRY_AFTER = 5  # seconds

# Wrong in our code, and wrong again at the next try. The other ShardingErrors pass by themselves.
_MISTAKES = (AcrossShardsRefused, OutsideAnalytics, ShardKeyChanged, ShardKeyRequired)

_ACTIONS = {
    400: "Correct the request; `errors` says what, where it is known. See /api/docs.",
    401: "Log in with POST /api/login and send the token as `Authorization: Bearer …`.",
    403: "Ask somebody who may do this, or log in as somebody who may.",
    404: "Check the address. What is not yours to see looks as if it did not exist.",
    405: "See /api/docs for the methods of this address.",
    406: "Accept application/json.",
    409: "Read the present state, then decide anew.",
    413: "Send less at once.",
    415: "Send JSON, with the header `Content-Type: application/json`.",
    429: "Wait as many seconds as Retry-After says, then try again.",
    500: "This is a mistake of the site. Tell those who run it the time and the address.",
    503: "Try again after as many seconds as Retry-After says.",
}


class TooLarge(APIException):
    """The body of a request is larger than DATA_UPLOAD_MAX_MEMORY_SIZE."""

    status_code = status.HTTP_413_REQUEST_ENTITY_TOO_LARGE
    default_detail = "The body of the request is too large."


def problem(code: int, detail: str, **members: Any) -> dict[str, Any]:
    """Return the body of an answer."""
    action = _ACTIONS.get(code, _ACTIONS[400])
    title = HTTPStatus(code).phrase
    return {"type": "about:blank", "title": title, "status": code, "detail": detail} | {
        "action": action,
        **members,
    }


def respond(error: Exception, context: dict[str, Any]) -> Response | None:
    """Answer an error of a view of the API; None for what nobody expects, which becomes a 500."""
    if found := _of_databases(error):
        code, detail, members = found
        set_rollback()
        headers = {"Retry-After": str(_RETRY_AFTER)} if code == 503 else {}
        body = problem(code, detail, **members)
        return Response(body, status=code, headers=headers, content_type=CONTENT_TYPE)
    if isinstance(error, RequestDataTooBig):
        error = TooLarge()
    if isinstance(error, DjangoValidationError):
        error = ValidationError(detail=_messages(error))
    response = exception_handler(error, context)
    if response is None:
        return None
    errors = _listed(error.detail) if isinstance(error, ValidationError) else []
    detail = f"{len(errors)} of the values cannot be used." if errors else _text(response.data)
    response.data = problem(response.status_code, detail, **({"errors": errors} if errors else {}))
    response.content_type = CONTENT_TYPE
    return response


class ProblemsMiddleware(MiddlewareMixin):
    """Answers, in views that are not of DRF, as the admin's: 503 for a database that is down, and
    400 for what none could store or look for, as a NUL.
    """

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        found = _of_databases(exception)
        if not found or found[0] not in (
            status.HTTP_400_BAD_REQUEST,
            status.HTTP_503_SERVICE_UNAVAILABLE,
        ):
            return None
        code, detail, members = found
        response = answer(request, code, detail, **members)
        if code == status.HTTP_503_SERVICE_UNAVAILABLE:
            response["Retry-After"] = str(_RETRY_AFTER)
        return response


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Answer what Django refuses to look at, e.g. a host outside ALLOWED_HOSTS."""
    return answer(request, 400, "The request is malformed, or for another host.")


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Answer for an address that there is not."""
    if not _is_api(request):
        return defaults.page_not_found(request, exception)
    return answer(request, 404, "Nothing has this address.")


def server_error(request: HttpRequest) -> HttpResponse:
    """Answer for an error that nobody expected, or for a database that a middleware missed."""
    error = sys.exc_info()[1]
    if isinstance(error, Exception) and (
        response := ProblemsMiddleware(lambda _: HttpResponse()).process_exception(request, error)
    ):
        return response
    if not _is_api(request):
        return defaults.server_error(request)
    return answer(request, 500, "Something failed that should not.")


def _of_databases(error: BaseException) -> tuple[int, str, dict[str, Any]] | None:
    """Return status, detail and members for an error of a database; None for any other."""
    if isinstance(error, DatabaseUnavailable):
        # The error's own text names hosts and sockets: for the log, not for everybody.
        logger.error("%s", error)
        name = conf.label(error.alias)
        return 503, f"Database {name} cannot be reached.", {"database": name}
    if isinstance(error, _MISTAKES):
        return None
    if isinstance(error, InvalidShardKey):
        return 400, str(error), {}
    if isinstance(error, OperationalError | ShardingError):
        logger.error("%s", error, exc_info=error)
        return 503, "A database could not do this just now.", {}
    if isinstance(error, ObjectDoesNotExist):
        return 404, "What this needs is not there, or no longer.", {}
    if isinstance(error, IntegrityError):
        logger.warning("%s", _without_detail(error))
        return 409, "Something else was stored meanwhile that this contradicts.", {}
    if isinstance(error, DataError):
        logger.warning("%s", _without_detail(error))
        return 400, "A value is none that a database can store.", {}
    return None


def _without_detail(error: BaseException) -> str:
    """What the server says that failed. Its DETAIL quotes rows, which are private."""
    return str(error).partition("\n")[0]


def _messages(error: DjangoValidationError) -> Any:
    return error.message_dict if hasattr(error, "error_dict") else error.messages


def _listed(detail: Any, path: str = "") -> list[dict[str, str]]:
    """Flatten DRF's nested errors: {"profile": {"country": [...]}} is of profile.country."""
    if isinstance(detail, dict):
        parts = ((f"{path}.{name}" if path else name, inner) for name, inner in detail.items())
        return [error for name, inner in parts for error in _listed(inner, str(name))]
    if isinstance(detail, list):
        return [error for inner in detail for error in _listed(inner, path)]
    return [{"field": path or "non_field_errors", "detail": str(detail)}]


def _text(data: Any) -> str:
    return str(data.get("detail", "")) if isinstance(data, dict) else str(data)


def _is_api(request: HttpRequest) -> bool:
    return request.path_info.startswith("/api/")


def answer(request: HttpRequest, code: int, detail: str, **members: Any) -> HttpResponse:
    """Answer a problem outside of DRF's views: as JSON below /api, else in plain words."""
    body = problem(code, detail, **members)
    if _is_api(request):
        return JsonResponse(body, status=code, content_type=CONTENT_TYPE)
    text = f"{body['title']}\n\n{detail} {body['action']}\n"
    return HttpResponse(text, status=code, content_type="text/plain; charset=utf-8")
