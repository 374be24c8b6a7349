"""The same views over an ordinary model: the profiles stand in the database of the accounts."""

from typing import Any
from uuid import UUID

from django.db import models
from django.urls import path

from config.probes import healthz
from users.api import accounts
from users.api.accounts import UserView
from users.api.profiles import ProfilesView
from users.models import Profile

__all__ = ["PlainProfile", "plain_model"]


def plain_model(model: Any, table: str) -> Any:
    """Return an ordinary model with the same fields and indexes."""
    fields = {field.name: field.clone() for field in model._meta.local_fields}
    indexes = [models.Index(fields=index.fields) for index in model._meta.indexes]
    meta = {"app_label": "users", "db_table": table, "indexes": indexes}
    members = {**fields, "Meta": type("Meta", (), meta), "__module__": __name__}
    return type("PlainProfile", (models.Model,), members)


PlainProfile = plain_model(Profile, "plain_profile")


def _profile(user_id: UUID | str) -> Any:
    return PlainProfile.objects.filter(pk=user_id).first()


class PlainProfilesView(ProfilesView):
    def get_queryset(self) -> Any:
        return PlainProfile.objects.all()


# In this process every profile is a plain one.
accounts.get_user_from_shard = _profile

urlpatterns = [
    path("healthz", healthz),
    path("api/users/<uuid:user_id>", UserView.as_view()),
    path("api/profiles", PlainProfilesView.as_view()),
]
