"""What is different in a process that syncs during the soak."""

from django.apps import AppConfig

__all__ = ["PAGES", "SoakConfig"]

PAGES = 2  # of a batch, so that a first load of few users has several


class SoakConfig(AppConfig):
    """Reads few pages in a batch."""

    name = "tests.analytics.sync"
    label = "soak"

    def ready(self) -> None:
        from analytics.sync import full

        full._PAGES = PAGES
