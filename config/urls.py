"""The site's addresses."""

from django.contrib import admin
from django.urls import include, path
from django.views.generic import RedirectView
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerView

from analytics import api as analytics
from config.metrics.view import metrics
from config.probes import healthz, readyz
from config.shards_api import ShardsView
from users.api.accounts import UsersView, UserView
from users.api.activities import ActivitiesView
from users.api.logins import LoginView, LogoutAllView, LogoutView
from users.api.profiles import ProfilesView

handler400 = "config.problems.bad_request"
handler404 = "config.problems.not_found"
handler500 = "config.problems.server_error"

_API = [
    path("login", LoginView.as_view(), name="api-login"),
    path("logout", LogoutView.as_view(), name="api-logout"),
    path("logout/all", LogoutAllView.as_view(), name="api-logout-all"),
    path("users", UsersView.as_view(), name="api-users"),
    path("users/<uuid:user_id>", UserView.as_view(), name="api-user"),
    path("users/<uuid:user_id>/activities", ActivitiesView.as_view(), name="api-activities"),
    path("profiles", ProfilesView.as_view(), name="api-profiles"),
    path("analytics/summary", analytics.SummaryView.as_view(), name="api-analytics-summary"),
    path("analytics/signups", analytics.SignUpsView.as_view(), name="api-analytics-signups"),
    path("analytics/active", analytics.ActiveView.as_view(), name="api-analytics-active"),
    path("analytics/segments", analytics.SegmentsView.as_view(), name="api-analytics-segments"),
    path("analytics/retention", analytics.RetentionView.as_view(), name="api-analytics-retention"),
    path("shards", ShardsView.as_view(), name="api-shards"),
    path("schema", SpectacularAPIView.as_view(), name="api-schema"),
    path("docs", SpectacularSwaggerView.as_view(url_name="api-schema"), name="api-docs"),
]

urlpatterns = [
    path("", RedirectView.as_view(pattern_name="admin:index")),
    path("healthz", healthz, name="healthz"),
    path("readyz", readyz, name="readyz"),
    path("metrics", metrics, name="metrics"),
    path("admin/", admin.site.urls),
    path("api/", include(_API)),
]
