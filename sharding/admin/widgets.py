"""The choice of a sharded row in a form."""

from collections.abc import Sequence
from typing import Any

from django.contrib.admin.widgets import AutocompleteSelect
from django.core.exceptions import ValidationError

from sharding.errors import DatabaseUnavailable

__all__ = ["ShardedAutocompleteSelect"]


class ShardedAutocompleteSelect(AutocompleteSelect):
    """Shows what was chosen by its id where its name cannot be looked up: the form must appear."""

    def optgroups(self, name: str, value: Sequence[str], attr: Any = None) -> Any:
        try:
            return super().optgroups(name, value, attr)
        except (DatabaseUnavailable, ValidationError):
            chosen = [each for each in value if each]
            options = [
                self.create_option(name, each, each, True, number)
                for number, each in enumerate(chosen)
            ]
            return [(None, options, 0)]
