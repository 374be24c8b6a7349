"""/api/users: an account together with its profile."""

from uuid import UUID

from rest_framework import serializers
from rest_framework.exceptions import NotFound
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from users.models import Profile, User
from users.services import get_user_from_shard

__all__ = ["AccountSerializer", "ProfileSerializer", "UserView"]


class AccountSerializer(serializers.ModelSerializer[User]):
    class Meta:
        model = User
        fields = ("id", "email", "name", "is_active", "is_staff", "date_joined", "last_login")


class ProfileSerializer(serializers.ModelSerializer[Profile]):
    class Meta:
        model = Profile
        fields = (
            "display_name",
            "country",
            "plan",
            "bio",
            "settings",
            "created_at",
            "updated_at",
        )


class UserView(APIView):
    """GET: the account, with its profile under `profile`. For staff and the user themself."""

    permission_classes = [IsAuthenticated]

    def get(self, request: Request, user_id: UUID) -> Response:
        """To others a user who exists looks like one who does not."""
        allowed = request.user.is_staff or request.user.pk == user_id
        account = User.objects.filter(pk=user_id).first() if allowed else None
        if account is None:
            raise NotFound
        profile = get_user_from_shard(user_id)
        owned = ProfileSerializer(profile).data if profile else None
        return Response({**AccountSerializer(account).data, "profile": owned})
