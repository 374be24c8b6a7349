"""What people read in the admin while a database is down: which one, and what became of the form.

Its own text names hosts and sockets, and is for the log. A change of rows that are just moving to
another shard is repeated until they have; should that take long, the same is said of it.
"""

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse

from sharding import conf
from sharding.admin.transactions import OutcomeUnknown
from sharding.errors import DatabaseUnavailable, SlotMoved
from sharding.following import run_again

__all__ = ["RETRY_AFTER", "OutageModelAdmin", "describe", "warn_of_missing"]

logger = logging.getLogger(__name__)

RETRY_AFTER = "5"  # seconds

_SAFE = ("GET", "HEAD", "OPTIONS", "TRACE")
_UNDONE = (DatabaseUnavailable, SlotMoved)


def describe(error: DatabaseUnavailable | SlotMoved) -> str:
    """Return one plain sentence about the database, and one about what was to be changed."""
    name = conf.label(error.alias)
    if isinstance(error, OutcomeUnknown):
        return (
            f"{name} was lost while this was being saved, so part of it may be done. Look again "
            f"when its server is back."
        )
    if isinstance(error, SlotMoved):
        return f"Rows are just moving away from {name}. Nothing was changed; try again in a moment."
    return f"{name} cannot be reached. Nothing was changed; try again when its server is back."


def warn_of_missing(request: HttpRequest, aliases: frozenset[str]) -> None:
    """Say above a list whose rows it lacks."""
    if aliases:
        names = " and ".join(sorted(map(conf.label, aliases)))
        whose = "Its" if len(aliases) == 1 else "Their"
        messages.warning(request, f"{names} cannot be reached. {whose} rows are not in this list.")


class OutageModelAdmin(admin.ModelAdmin):
    """Pages that say so when a change needs a database that is down, with what was typed kept.

    For models whose rows, or whose signals' rows, live on more databases than the primary.
    """

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> Any:
        if request.method in _SAFE:
            return super().changeform_view(request, object_id, form_url, extra_context)
        save = super().changeform_view
        try:
            return self._repeated(
                request,
                lambda: self.writing(request, object_id),
                lambda _: save(request, object_id, form_url, extra_context),
            )
        except _UNDONE as error:
            self._report(request, error)
            request._unsaved = describe(error)  # type: ignore[attr-defined]
        with self.placed(request, object_id):
            show: Any = super()._changeform_view  # type: ignore[misc]
            response = show(request, object_id, form_url, extra_context)
        response.status_code = 503
        response["Retry-After"] = RETRY_AFTER
        return response

    def writing(self, request: HttpRequest, object_id: str | None) -> AbstractContextManager[Any]:
        """Return what the work on a form that was sent runs in: transactions, say."""
        return nullcontext()

    def placed(self, request: HttpRequest, object_id: str | None) -> AbstractContextManager[Any]:
        """Return what showing the form again runs in."""
        return nullcontext()

    def get_form(
        self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any
    ) -> Any:
        """Return the form; shown again after a failure, one that is valid no more."""
        form = super().get_form(request, obj, change=change, **kwargs)
        if text := getattr(request, "_unsaved", None):
            return type(form.__name__, (form,), _failing_with(text))
        return form

    def delete_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> Any:
        if request.method in _SAFE:
            return super().delete_view(request, object_id, extra_context)
        delete = super().delete_view
        try:
            return self._repeated(
                request,
                lambda: self.writing(request, object_id),
                lambda _: delete(request, object_id, extra_context),
            )
        except _UNDONE as error:
            return self._back_to_list(request, error)

    def response_action(self, request: HttpRequest, queryset: Any) -> HttpResponse | None:
        act = super().response_action
        try:
            return self._repeated(
                request,
                lambda: self.acting(request, queryset),
                lambda chosen: act(request, chosen),
            )
        except _UNDONE as error:
            return self._back_to_list(request, error)

    def acting(self, request: HttpRequest, queryset: Any) -> AbstractContextManager[Any]:
        """Return what an action runs in, and gives the rows that were chosen."""
        return nullcontext(queryset)

    def _repeated(
        self,
        request: HttpRequest,
        around: Callable[[], AbstractContextManager[Any]],
        work: Callable[[Any], Any],
    ) -> Any:
        """Do the work inside what `around` makes; again as a whole while its rows are moving."""

        def once() -> Any:
            _unsay(request)
            with around() as entered:
                return work(entered)

        return run_again(once, alias=conf.primary)

    def _back_to_list(
        self, request: HttpRequest, error: DatabaseUnavailable | SlotMoved
    ) -> HttpResponse:
        self._report(request, error)
        self.message_user(request, describe(error), messages.ERROR)
        name = f"{self.opts.app_label}_{self.opts.model_name}_changelist"
        return HttpResponseRedirect(reverse(f"{self.admin_site.name}:{name}"))

    def _report(self, request: HttpRequest, error: DatabaseUnavailable | SlotMoved) -> None:
        if error.alias == conf.primary():
            raise error  # without accounts and sessions there is no page of the admin
        logger.error("%s %s: %s", request.method, request.path, error)
        _unsay(request)


def _unsay(request: HttpRequest) -> None:
    """Take back "was saved successfully", which is queued before the commit that has failed."""
    getattr(messages.get_messages(request), "_queued_messages", []).clear()


def _failing_with(text: str) -> dict[str, Any]:
    """Return the steps of a form's validation, without any that could ask the database again."""
    return {
        "_clean_fields": lambda form: None,
        "_clean_form": lambda form: None,
        "_post_clean": lambda form: form.add_error(None, text),
    }
