"""The account: login, permissions, one place for the email to be unique. On the primary."""

import uuid
from typing import Any, ClassVar

from django.conf import settings
from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.contrib.auth.models import PermissionsMixin
from django.db import models, transaction
from django.db.models.functions import Lower
from django.utils import timezone

from sharding.change_log import change_triggers
from users.models.owned import Profile

__all__ = ["LowercaseEmailField", "User", "UserManager"]


class LowercaseEmailField(models.EmailField):
    """An email address, stored and looked up in lower case: unique without regard to case."""

    def to_python(self, value: Any) -> Any:
        return _lower(super().to_python(value))

    def pre_save(self, model_instance: models.Model, add: bool) -> Any:
        value = _lower(super().pre_save(model_instance, add))
        setattr(model_instance, self.attname, value)
        return value


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


class UserManager(BaseUserManager["User"]):
    """Makes accounts; each with its profile, see User.save."""

    use_in_migrations = True

    def create_user(self, email: str, password: str | None = None, **fields: Any) -> "User":
        """Store an account that logs in by `email`; without a password it cannot log in."""
        if not email:
            raise ValueError("An account needs an email.")
        user = self.model(email=email, **fields)
        user.set_password(password)
        user.save(using=self._db)
        return user

    def create_superuser(self, email: str, password: str | None = None, **fields: Any) -> "User":
        """Store an account that may do everything."""
        return self.create_user(email, password, **fields, is_staff=True, is_superuser=True)


class User(AbstractBaseUser, PermissionsMixin):
    """An account. `id` is the key of everything that the user owns on the shards."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    email = LowercaseEmailField(
        unique=True, error_messages={"unique": "A user with this email already exists."}
    )
    name = models.CharField(max_length=150, blank=True)
    is_active = models.BooleanField(default=True)
    is_staff = models.BooleanField(
        "staff status", default=False, help_text="May log in to this admin site."
    )
    date_joined = models.DateTimeField(default=timezone.now)
    updated_at = models.DateTimeField(auto_now=True)

    objects = UserManager()

    EMAIL_FIELD = "email"
    USERNAME_FIELD = "email"
    REQUIRED_FIELDS: ClassVar[list[str]] = []

    class Meta:
        triggers = change_triggers(
            "users_userchange",
            key="id",
            columns=["email", "name", "is_active", "is_staff", "date_joined", "last_login"],
        )
        constraints = [
            # For raw SQL and COPY, which pass by LowercaseEmailField.
            models.CheckConstraint(
                condition=models.Q(email=Lower("email")), name="users_user_email_lowercase"
            )
        ]

    def __str__(self) -> str:
        return self.email

    def get_full_name(self) -> str:
        """The user's name, or their email where they gave none."""
        return self.name or self.email

    def save(self, *args: Any, profile: Profile | None = None, **kwargs: Any) -> None:
        """Store the account; a new one together with `profile`, or with an empty one.

        The profile is committed on its shard before the account is on the primary, so that no
        account is ever without one, whoever makes it: a form, a command, the admin.
        """
        if not self._state.adding:
            super().save(*args, **kwargs)
            return
        profile = profile or Profile()
        profile.user_id = self.id
        try:
            with transaction.atomic(using=settings.PRIMARY_DATABASE):
                super().save(*args, **kwargs)
                # Not force_insert: a try whose commit on the primary failed has left a profile.
                profile.save()
        except BaseException:
            self._state.adding = True  # rolled back: saved again, it needs its profile again
            raise
