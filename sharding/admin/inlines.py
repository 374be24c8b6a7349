"""Rows that are edited in the page of the row that they belong to."""

from typing import Any

from django.core.exceptions import ValidationError
from django.forms import BaseInlineFormSet

__all__ = ["ShardedInlineFormSet"]


class ShardedInlineFormSet(BaseInlineFormSet):
    """Finds the rows that were sent, wherever they stand by now.

    Django looks on the page that it showed, which others' new rows have shifted meanwhile, takes
    what is not there for new, and stores it twice: a UUID is its default.
    """

    queryset: Any

    def _existing_object(self, pk: Any) -> Any:
        shown = super()._existing_object(pk)  # type: ignore[misc]
        return shown or self.queryset.filter(pk=pk).first()

    def clean(self) -> None:
        super().clean()
        if any(form.instance._state.adding for form in self.initial_forms):
            raise ValidationError(
                "A row that this page showed was deleted meanwhile. Nothing was saved: load the "
                "page again."
            )
