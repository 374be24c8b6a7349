"""/api/login and /api/logout: tokens, which are stored as hashes only and expire."""

from typing import Any

from django.contrib.auth import authenticate
from django.contrib.auth.signals import user_logged_in, user_logged_out
from django.utils import timezone
from drf_spectacular.utils import extend_schema, inline_serializer
from knox.models import AuthToken
from knox.settings import knox_settings
from rest_framework import serializers, status
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.permissions import AllowAny, IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.throttling import SimpleRateThrottle

from users.api.authentication import TokenAuthentication, forget
from users.api.serializers import AccountSerializer, Strict
from users.api.views import ApiView
from users.models import User

__all__ = ["LoginThrottle", "LoginView", "LogoutAllView", "LogoutView", "PasswordThrottle"]


class LoginThrottle(SimpleRateThrottle):
    """How often an address may try to log in, here and in the admin together, whoever it is."""

    scope = "login"

    def get_cache_key(self, request: Any, view: Any) -> str:
        return self.cache_format % {"scope": self.scope, "ident": self.get_ident(request)}


class PasswordThrottle(LoginThrottle):
    """The same for users who set their password: to check the present one takes as long."""

    def allow_request(self, request: Any, view: Any) -> bool:
        own = request.method == "PATCH" and request.user.pk == view.kwargs["user_id"]
        return not (own and "password" in request.data) or super().allow_request(request, view)


class LoginSerializer(Strict):
    email = serializers.EmailField(max_length=254)
    password = serializers.CharField(max_length=128, trim_whitespace=False)


class LoginView(ApiView):
    """Exchanges an email and a password for a token."""

    authentication_classes = []
    permission_classes = [AllowAny]
    throttle_classes = [LoginThrottle]

    def get_authenticate_header(self, request: Request) -> str:
        return TokenAuthentication().authenticate_header(request)

    @extend_schema(
        operation_id="login",
        request=LoginSerializer,
        responses=inline_serializer(
            "Login",
            {
                "token": serializers.CharField(),
                "expires_at": serializers.DateTimeField(),
                "user": AccountSerializer(),
            },
        ),
    )
    def post(self, request: Request) -> Response:
        """Log in. Send the token as `Authorization: Bearer …` from then on."""
        given = LoginSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        user: Any = authenticate(
            request, username=given.data["email"], password=given.data["password"]
        )
        if user is None:
            raise AuthenticationFailed("No active account has this email and password.")
        _make_room(user)
        instance, token = AuthToken.objects.create(user)
        user_logged_in.send(User, request=request, user=user)
        account = AccountSerializer(user).data
        return Response({"token": token, "expires_at": instance.expiry, "user": account})


class LogoutView(ApiView):
    """Ends the token that the request carries."""

    authentication_classes = [TokenAuthentication]
    permission_classes = [IsAuthenticated]

    @extend_schema(operation_id="logout", request=None, responses={204: None})
    def post(self, request: Request) -> Response:
        """Log out: the token of this request is worth nothing from now on."""
        self.tokens(request).delete()
        forget(request)
        user_logged_out.send(User, request=request, user=request.user)
        return Response(status=status.HTTP_204_NO_CONTENT)

    def tokens(self, request: Request) -> Any:
        """Return the tokens to end."""
        return AuthToken.objects.filter(pk=request.auth.pk)


class LogoutAllView(LogoutView):
    """Ends all tokens of the user."""

    @extend_schema(operation_id="logout_all", request=None, responses={204: None})
    def post(self, request: Request) -> Response:
        """Log out everywhere: none of the user's tokens is worth anything from now on."""
        return super().post(request)

    def tokens(self, request: Request) -> Any:
        return AuthToken.objects.filter(user=request.user)


def _make_room(user: User) -> None:
    """Delete tokens that have expired, and the oldest of too many."""
    tokens = AuthToken.objects.filter(user=user)
    tokens.filter(expiry__lt=timezone.now()).delete()
    kept = tokens.order_by("-created").values("pk")[: knox_settings.TOKEN_LIMIT_PER_USER - 1]
    tokens.exclude(pk__in=list(kept.values_list("pk", flat=True))).delete()
