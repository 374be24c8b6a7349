"""The app's place in Django."""

from django.apps import AppConfig


class UsersConfig(AppConfig):
    name = "users"

    def ready(self) -> None:
        from users import services  # noqa: F401  its signal receiver connects itself
