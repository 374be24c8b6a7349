"""Shards that did not say which slots they own while the primary could not be asked either.

Their users may have moved since, unnoticed by this process: until they answer, nobody reads there.
"""

__all__ = ["aliases", "remember"]

_aliases: frozenset[str] = frozenset()


def aliases() -> frozenset[str]:
    """Return the shards in doubt."""
    return _aliases


def remember(aliases: frozenset[str]) -> None:
    """Note which shards are in doubt by now."""
    global _aliases
    _aliases = aliases
