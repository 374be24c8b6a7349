"""The site's settings on one plain database: what benchmarks.http compares with.

The same middleware and gunicorn, with Django's own backend and no router.
"""

from config.settings import *  # noqa: F403
from config.settings import DATABASES as _DATABASES
from config.settings import MIDDLEWARE as _MIDDLEWARE

DATABASES = {"default": {**_DATABASES["default"], "ENGINE": "django.db.backends.postgresql"}}
DATABASE_ROUTERS = []
DATABASE_APPS = {}
MIDDLEWARE = [each for each in _MIDDLEWARE if "DatabaseSelection" not in each]
ROOT_URLCONF = "benchmarks.plain_urls"
