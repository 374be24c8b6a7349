"""The app's place in Django."""

from django.apps import AppConfig


class AnalyticsConfig(AppConfig):
    name = "analytics"

    def ready(self) -> None:
        from analytics import checks  # noqa: F401  they register themselves
        from analytics.fallback import read_copies
        from analytics.sync import arrivals  # noqa: F401  its signal receiver connects itself
        from users.fallback import register_copies

        register_copies(read_copies)
