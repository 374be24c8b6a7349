"""/api/analytics: reports, from the analytics database alone."""

from datetime import timedelta
from typing import Any

from django.db.models import Count, Q
from django.utils import timezone
from rest_framework.permissions import IsAdminUser
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from analytics.models import SyncRun, UserAnalytics

__all__ = ["SummaryView", "summary"]


class SummaryView(APIView):
    """GET: how many users there are. For staff."""

    permission_classes = [IsAdminUser]

    def get(self, request: Request) -> Response:
        return Response(summary())


def summary() -> dict[str, Any]:
    """Count the users; `last_sync` is when the last full pass that succeeded ended, or None."""
    now = timezone.now()
    counts = UserAnalytics.objects.aggregate(
        total=Count("pk"),
        active=Count("pk", filter=Q(is_active=True)),
        staff=Count("pk", filter=Q(is_staff=True)),
        joined_last_7_days=Count("pk", filter=Q(date_joined__gte=now - timedelta(days=7))),
        joined_last_30_days=Count("pk", filter=Q(date_joined__gte=now - timedelta(days=30))),
    )
    done = SyncRun.objects.filter(mode="full", error="").order_by("-finished_at")
    return {**counts, "last_sync": done.values_list("finished_at", flat=True).first()}
