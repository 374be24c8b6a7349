"""Tests of the sharding app."""

from hypothesis import settings

# On a busy machine a slow example says nothing.
settings.register_profile("tests", deadline=None)
settings.load_profile("tests")
