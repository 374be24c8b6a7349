"""/api/analytics: reports, from the analytics database alone."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from datetime import date, timedelta
from typing import Any, ClassVar

from django.db.models import Count as CountOf
from django.db.models import Q
from django.utils import timezone
from drf_spectacular.utils import extend_schema, inline_serializer
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from analytics import reports
from analytics.models import SyncRun, UserAnalytics
from users.api.pages import NothingAsked, queried
from users.api.serializers import Strict
from users.api.views import ApiView

__all__ = [
    "ActiveView",
    "RetentionView",
    "SegmentsView",
    "SignUpsView",
    "SummaryView",
    "summary",
]

Serializer = serializers.Serializer[Any]

_EARLIEST, _LATEST = date(1970, 1, 1), date(2999, 12, 31)
_USUAL = timedelta(days=30)


class RangeQuery(Strict):
    """Two days, both included, at most `reports.LONGEST` apart; the last 30 unless given."""

    def get_fields(self) -> dict[str, serializers.Field[Any, Any, Any, Any]]:
        # "from" is a word of Python.
        fields = super().get_fields()
        days = {name: serializers.DateField(required=False) for name in ("from", "to")}
        return {**days, **fields}

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        days = {name: attrs[name] for name in ("from", "to") if name in attrs}
        text = f"This must lie between {_EARLIEST} and {_LATEST}."
        if wrong := [name for name, day in days.items() if not _EARLIEST <= day <= _LATEST]:
            raise serializers.ValidationError({name: [text] for name in wrong})
        end = days.get("to") or timezone.now().date()
        start = days.get("from") or max(end - _USUAL, _EARLIEST)
        if not start <= end <= start + reports.LONGEST:
            longest = f"{reports.LONGEST.days} days"
            text = f"The range must not begin after it ends, nor be longer than {longest}."
            raise serializers.ValidationError({"from": [text]})
        return {**attrs, "from": start, "to": end}


class SeriesQuery(RangeQuery):
    """And the buckets to count in."""

    bucket = serializers.ChoiceField(reports.BUCKETS, default="day")


class CountSerializer(serializers.Serializer[reports.Count]):
    start = serializers.DateField()
    users = serializers.IntegerField()


class SegmentSerializer(serializers.Serializer[reports.Segment]):
    country = serializers.CharField()
    plan = serializers.CharField()
    users = serializers.IntegerField()


class RetentionSerializer(serializers.Serializer[reports.Retention]):
    month = serializers.DateField()
    joined = serializers.IntegerField()
    months_later = serializers.IntegerField()
    still_active = serializers.IntegerField()


class SummarySerializer(serializers.Serializer[dict[str, Any]]):
    total = serializers.IntegerField()
    active = serializers.IntegerField()
    staff = serializers.IntegerField()
    joined_last_7_days = serializers.IntegerField()
    joined_last_30_days = serializers.IntegerField()
    last_sync = serializers.DateTimeField(allow_null=True)


def _described(name: str, row: type[Serializer], query: type[Serializer]) -> Serializer:
    """Describe a report: the range that it is of, and its rows."""
    fields = {**query().fields, "results": row(many=True)}
    return inline_serializer(f"{name}Report", {n: deepcopy(field) for n, field in fields.items()})


def _answer(
    request: Request,
    report: Callable[..., Sequence[Any]],
    query: type[Serializer],
    row: type[Serializer],
) -> Response:
    """Answer with the report's rows over the range that the URL asks for, if it takes one."""
    asked = queried(request, query)
    arguments = [asked[name] for name in ("from", "to", "bucket") if name in asked]
    return Response({**asked, "results": row(report(*arguments), many=True).data})


class ReportView(ApiView):
    """A report. For staff who may see the copies."""

    staff_permissions: ClassVar = {"GET": "analytics.view_useranalytics"}


class SummaryView(ReportView):
    @extend_schema(operation_id="analytics_summary", responses=SummarySerializer)
    def get(self, request: Request) -> Response:
        """Count the users."""
        queried(request, NothingAsked)
        return Response(SummarySerializer(summary()).data)


class SignUpsView(ReportView):
    @extend_schema(
        operation_id="analytics_signups",
        parameters=[SeriesQuery],
        responses=_described("SignUps", CountSerializer, SeriesQuery),
    )
    def get(self, request: Request) -> Response:
        """Count who joined, by day, week or month."""
        return _answer(request, reports.sign_ups, SeriesQuery, CountSerializer)


class ActiveView(ReportView):
    @extend_schema(
        operation_id="analytics_active",
        parameters=[SeriesQuery],
        responses=_described("Active", CountSerializer, SeriesQuery),
    )
    def get(self, request: Request) -> Response:
        """Count the users by their last login, by day, week or month."""
        return _answer(request, reports.active_users, SeriesQuery, CountSerializer)


class SegmentsView(ReportView):
    @extend_schema(
        operation_id="analytics_segments",
        responses=_described("Segments", SegmentSerializer, NothingAsked),
    )
    def get(self, request: Request) -> Response:
        """Count the users of each country and plan, the most first."""
        return _answer(request, reports.by_country_and_plan, NothingAsked, SegmentSerializer)


class RetentionView(ReportView):
    @extend_schema(
        operation_id="analytics_retention",
        parameters=[RangeQuery],
        responses=_described("Retention", RetentionSerializer, RangeQuery),
    )
    def get(self, request: Request) -> Response:
        """Of those who joined in a month: how many logged in so many months later, or after."""
        return _answer(request, reports.retention, RangeQuery, RetentionSerializer)


def summary() -> dict[str, Any]:
    """Count the users; `last_sync` is when the last full pass that succeeded ended, or None."""
    now = timezone.now()
    counts = UserAnalytics.objects.aggregate(
        total=CountOf("pk"),
        active=CountOf("pk", filter=Q(is_active=True)),
        staff=CountOf("pk", filter=Q(is_staff=True)),
        joined_last_7_days=CountOf("pk", filter=Q(date_joined__gte=now - timedelta(days=7))),
        joined_last_30_days=CountOf("pk", filter=Q(date_joined__gte=now - timedelta(days=30))),
    )
    done = SyncRun.objects.filter(mode="full", error="").order_by("-finished_at")
    return {**counts, "last_sync": done.values_list("finished_at", flat=True).first()}
