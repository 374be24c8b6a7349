"""Django's admin, with this project's site."""

from django.contrib.admin.apps import AdminConfig

__all__ = ["ProjectAdminConfig"]


class ProjectAdminConfig(AdminConfig):
    """Makes `django.contrib.admin.site` the one of config.admin."""

    default_site = "config.admin.Site"
