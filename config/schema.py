"""The API's description in OpenAPI: what drf-spectacular reads from the views, and the errors."""

from typing import Any

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.openapi import AutoSchema as SpectacularAutoSchema
from drf_spectacular.plumbing import build_bearer_security_scheme_object
from rest_framework import serializers

from config.problems import CONTENT_TYPE

__all__ = ["AutoSchema", "TokenScheme"]

_WITH_BODY = ("POST", "PATCH", "PUT")


class ErrorSerializer(serializers.Serializer[Any]):
    field = serializers.CharField()
    detail = serializers.CharField()


class ProblemSerializer(serializers.Serializer[Any]):
    """Problem details of RFC 9457."""

    type = serializers.CharField()
    title = serializers.CharField()
    status = serializers.IntegerField()
    detail = serializers.CharField()
    action = serializers.CharField(help_text="What to do now.")
    errors = ErrorSerializer(  # type: ignore[assignment]
        many=True, required=False, help_text="What is wrong, by field."
    )
    database = serializers.CharField(required=False, help_text="The one that cannot be reached.")


class TokenScheme(OpenApiAuthenticationExtension):
    """How a token is sent."""

    target_class = "users.api.authentication.TokenAuthentication"
    name = "token"

    def get_security_definition(self, auto_schema: Any) -> Any:
        return build_bearer_security_scheme_object("Authorization", "Bearer")


class AutoSchema(SpectacularAutoSchema):
    """drf-spectacular's, with the answers that every operation may give."""

    def get_tags(self) -> list[str]:
        return [self.path.removeprefix("/api/").partition("/")[0]]

    def _get_response_bodies(self, direction: Any = "response") -> Any:
        bodies = super()._get_response_bodies(direction)
        for code in self._problems():
            media = [CONTENT_TYPE]
            bodies.setdefault(
                str(code), self._get_response_for_code(ProblemSerializer, str(code), media)
            )
        return bodies

    def _problems(self) -> list[int]:
        codes = [400, 401, 405, 406, 429, 503]
        if self.view.get_authenticators():
            codes.append(403)
        if "{" in self.path:
            codes.append(404)
        if self.method in _WITH_BODY:
            codes += [409, 413, 415]
        if self.method == "DELETE":
            codes.append(409)
        return sorted(codes)
