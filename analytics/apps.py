"""The app's place in Django."""

from django.apps import AppConfig


class AnalyticsConfig(AppConfig):
    name = "analytics"

    def ready(self) -> None:
        from analytics.fallback import read_copies
        from users.fallback import register_copies

        register_copies(read_copies)
