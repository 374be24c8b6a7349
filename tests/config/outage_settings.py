"""The site's settings, with addresses that each need one database; for the outage tests."""

from config.settings import *  # noqa: F403

ROOT_URLCONF = "tests.config.outage_urls"
