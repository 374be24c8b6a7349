"""Accounts, profiles and activities as the API shows and takes them."""

import json
from collections.abc import Mapping
from typing import Any

from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError as DjangoValidationError
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from users.models import Activity, Profile, User

__all__ = [
    "AccountSerializer",
    "ActivitySerializer",
    "CreateUserSerializer",
    "OwnUserSerializer",
    "ProfileSerializer",
    "StaffUserSerializer",
    "Strict",
    "SuperuserUserSerializer",
    "UserSerializer",
]

_LARGEST_JSON = 16_384  # characters
_LONGEST_BIO = 10_000
_LONGEST_PASSWORD = 128  # hashing a longer one takes long, as an attacker knows


class Strict(serializers.Serializer[Any]):
    """Refuses what it does not know: a field that is misspelled must not be lost silently."""

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, Mapping):
            writable = {name for name, field in self.fields.items() if not field.read_only}
            if unknown := sorted(data.keys() - writable):
                known = ", ".join(sorted(writable))
                text = f"This is no field that you may set here. Those are: {known}."
                raise serializers.ValidationError({name: [text] for name in unknown})
        return super().to_internal_value(data)


@extend_schema_field({"type": "object", "additionalProperties": {}})
class BoundedObject(serializers.JSONField):
    """A JSON object that fits a row."""

    def to_internal_value(self, data: Any) -> Any:
        if not isinstance(data, dict):
            raise serializers.ValidationError("This must be a JSON object.")
        if len(json.dumps(data)) > _LARGEST_JSON:
            raise serializers.ValidationError(f"As JSON this is over {_LARGEST_JSON} characters.")
        return super().to_internal_value(data)


class AccountSerializer(serializers.ModelSerializer[User]):
    class Meta:
        model = User
        fields = ("id", "email", "name", "is_active", "is_staff", "date_joined", "last_login")


class ProfileSerializer(serializers.ModelSerializer[Profile]):
    settings = BoundedObject()

    class Meta:
        model = Profile
        fields = (
            "user_id",
            "display_name",
            "country",
            "plan",
            "bio",
            "settings",
            "created_at",
            "updated_at",
        )


class UserSerializer(AccountSerializer):
    profile = ProfileSerializer(allow_null=True)

    class Meta(AccountSerializer.Meta):
        fields: Any = (*AccountSerializer.Meta.fields, "profile")


class OwnProfileWrite(Strict, serializers.ModelSerializer[Profile]):
    """What users may change of their profile."""

    bio = serializers.CharField(max_length=_LONGEST_BIO, allow_blank=True, required=False)
    settings = BoundedObject(required=False)

    class Meta:
        model = Profile
        fields: Any = ("display_name", "country", "bio", "settings")


class ProfileWrite(OwnProfileWrite):
    """What the staff may change as well."""

    class Meta(OwnProfileWrite.Meta):
        fields = (*OwnProfileWrite.Meta.fields, "plan")


class OwnUserSerializer(Strict, serializers.ModelSerializer[User]):
    """What users may change of their account; a new password needs the present one."""

    password = serializers.CharField(
        max_length=_LONGEST_PASSWORD, write_only=True, required=False, trim_whitespace=False
    )
    current_password = serializers.CharField(
        max_length=_LONGEST_PASSWORD, write_only=True, required=False, trim_whitespace=False
    )
    profile = OwnProfileWrite(required=False)

    class Meta:
        model = User
        fields: Any = ("name", "password", "current_password", "profile")

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        current = attrs.pop("current_password", "")
        if "password" in attrs:
            if "current_password" in self.fields and not self.instance.check_password(current):  # type: ignore[union-attr]
                raise serializers.ValidationError(
                    {"current_password": ["This is not your present password."]}
                )
            _validate_password(attrs["password"], self.instance or User(**_account(attrs)))
        return attrs


class StaffUserSerializer(OwnUserSerializer):
    """What the staff may change."""

    current_password = None  # type: ignore[assignment]
    email = serializers.EmailField(max_length=254, required=False)
    profile = ProfileWrite(required=False)

    class Meta(OwnUserSerializer.Meta):
        fields: Any = ("email", "name", "is_active", "password", "profile")


class SuperuserUserSerializer(StaffUserSerializer):
    """What superusers may change."""

    class Meta(StaffUserSerializer.Meta):
        fields = (*StaffUserSerializer.Meta.fields, "is_staff")


class CreateUserSerializer(StaffUserSerializer):
    """A new account. Without a password nobody can log in to it."""

    email = serializers.EmailField(max_length=254)


@extend_schema_field({"type": ["string", "number"], "format": "decimal"})
class Amount(serializers.DecimalField):
    """A decimal number, shown as text so that nobody rounds it; taken as either."""


class ActivitySerializer(Strict, serializers.ModelSerializer[Activity]):
    amount = Amount(max_digits=12, decimal_places=2, required=False)
    payload = BoundedObject(required=False)

    class Meta:
        model = Activity
        fields = ("id", "kind", "amount", "payload", "occurred_at")
        read_only_fields = ("id",)


def _account(attrs: Mapping[str, Any]) -> dict[str, Any]:
    return {name: attrs[name] for name in ("email", "name") if name in attrs}


def _validate_password(password: str, user: Any) -> None:
    try:
        validate_password(password, user)
    except DjangoValidationError as error:
        raise serializers.ValidationError({"password": error.messages}) from None
