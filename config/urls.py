"""The site's addresses."""

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.urls import path
from django.views.generic import RedirectView

from analytics.api import SummaryView
from config.metrics.view import metrics
from users.api import UserView


def healthz(request: HttpRequest) -> HttpResponse:
    """Say that the process is alive; a database that is down is no reason to restart it."""
    return HttpResponse("ok", content_type="text/plain")


urlpatterns = [
    path("", RedirectView.as_view(pattern_name="admin:index")),
    path("healthz", healthz, name="healthz"),
    path("metrics", metrics, name="metrics"),
    path("admin/", admin.site.urls),
    path("api/users/<uuid:user_id>", UserView.as_view(), name="api-user"),
    path("api/analytics/summary", SummaryView.as_view(), name="api-analytics-summary"),
]
