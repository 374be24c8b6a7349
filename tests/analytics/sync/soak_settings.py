"""The site's settings, for a sync on servers that only some shards of the installation have."""

from config.settings import *  # noqa: F403

INSTALLED_APPS = [*INSTALLED_APPS, "tests.analytics.sync.soak_app.SoakConfig"]  # noqa: F405
SHARDING_CHECK_IDENTITY = False
SYNC_LOG_LIMIT = 2000  # so that a log is emptied now and then
