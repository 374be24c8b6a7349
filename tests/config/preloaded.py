"""A site that asks every database while it is loaded: under --preload, before the fork."""

from django.db import connections

from config.wsgi import application

__all__ = ["application"]

for alias in connections:
    with connections[alias].cursor() as cursor:
        cursor.execute("SELECT 1")
