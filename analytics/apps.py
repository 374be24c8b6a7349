"""The app's place in Django."""

from django.apps import AppConfig


class AnalyticsConfig(AppConfig):
    name = "analytics"
