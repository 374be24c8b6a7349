"""The app's place in Django."""

from django.apps import AppConfig


class UsersConfig(AppConfig):
    name = "users"

    def ready(self) -> None:
        from users import orphans, services  # noqa: F401  their signal receivers connect themselves
