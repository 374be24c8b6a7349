"""The test runner: PostgreSQL servers of the run's own, unless the environment names others."""

import os
import warnings
from collections.abc import Callable
from typing import Any
from unittest import TestSuite

from django.conf import settings
from django.db import connections
from django.test.runner import DiscoverRunner
from psycopg.conninfo import conninfo_to_dict
from rest_framework.throttling import SimpleRateThrottle

from config.databases import PRIMARY
from config.embedded import Cluster
from sharding.databases import DatabaseManager

__all__ = ["Runner"]

_FOLDER = settings.BASE_DIR / "var"
_PREFIX = "test-"  # and the number of a process that runs tests; perhaps more, see tests.outage


class Runner(DiscoverRunner):
    """Starts servers before the tests and deletes them after; warnings are errors."""

    def run_tests(self, test_labels: list[str], **kwargs: Any) -> int:
        _destroy(_is_over)
        try:
            return self._run_tests(test_labels, **kwargs)
        finally:
            _destroy(lambda process: process == os.getpid() or _is_over(process))

    def _run_tests(self, test_labels: list[str], **kwargs: Any) -> int:
        if not settings.EMBEDDED:
            return super().run_tests(test_labels, **kwargs)
        cluster = Cluster(_FOLDER / f"{_PREFIX}{os.getpid()}", durable=False)
        cluster.start()
        for alias in cluster.aliases:
            address = conninfo_to_dict(cluster.url(alias))
            connections[alias].settings_dict["HOST"] = address["host"]
        return super().run_tests(test_labels, **kwargs)

    def get_databases(self, suite: TestSuite) -> Any:
        databases: Any = super().get_databases(suite)
        # The others' tables depend on it, also where no test asks it anything.
        return {PRIMARY: False, **databases} if databases else databases

    def run_suite(self, suite: TestSuite, **kwargs: Any) -> Any:
        # A worker forked with an open pool would share its sockets and lack its threads.
        DatabaseManager().disconnect()
        return super().run_suite(suite, **kwargs)

    def teardown_databases(self, old_config: Any, **kwargs: Any) -> None:
        # Embedded servers are deleted whole, also under workers that still hold connections.
        if not settings.EMBEDDED:
            super().teardown_databases(old_config, **kwargs)

    def setup_test_environment(self, **kwargs: Any) -> None:
        super().setup_test_environment(**kwargs)
        warnings.simplefilter("error")
        # The real one is slow on purpose.
        settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
        settings.ANALYTICS_STRICT = True
        # Shared by all throttles; the tests of these set their own.
        SimpleRateThrottle.THROTTLE_RATES.update(dict.fromkeys(("anon", "user", "login")))


def _destroy(chosen: Callable[[int], bool]) -> None:
    """Delete the servers of these processes: the runners, and others that run tests."""
    for folder in _FOLDER.glob(f"{_PREFIX}*"):
        if chosen(int(folder.name.split("-")[1])):
            Cluster(folder).destroy()


def _is_over(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
