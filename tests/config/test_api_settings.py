"""The API's settings."""

from django.core.exceptions import ImproperlyConfigured
from django.test import SimpleTestCase

from config.api_settings import throttle_rates


class ThrottleRatesTests(SimpleTestCase):
    def test_from_the_environment_or_as_usual(self):
        rates = throttle_rates({"API_RATE_USER": "5/second", "API_RATE_LOGIN": "off"})
        self.assertEqual(rates, {"anon": "60/minute", "user": "5/second", "login": None})

    def test_what_is_no_rate_is_named(self):
        for value in ("many", "0/minute", "5/week", "5", "-1/hour"):
            with self.assertRaisesRegex(ImproperlyConfigured, "API_RATE_USER must be"):
                throttle_rates({"API_RATE_USER": value})
