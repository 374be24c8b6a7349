"""A site that fails while it is loaded, with connections open."""

from tests.config.preloaded import application

__all__ = ["application"]

raise RuntimeError("This site is broken.")
