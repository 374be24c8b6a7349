"""That the sync loses nothing and invents nothing. SOAK=1 in the environment makes it long."""

import os

from hypothesis import settings

__all__ = ["SOAK"]

SOAK = bool(os.environ.get("SOAK"))

settings.register_profile("tests", deadline=None)
settings.load_profile("tests")
