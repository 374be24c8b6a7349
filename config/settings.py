"""The settings of development and production, from the environment and `.env`.

Reading them starts nothing and connects to nothing. With none of the DATABASE_*_URL variables set
they describe the embedded servers, for development; with them, a production site.
"""

import os
from datetime import timedelta
from pathlib import Path

import environ
from django.core.exceptions import ImproperlyConfigured
from django.templatetags.static import static

from config import api_settings, databases, embedded, logs

BASE_DIR = Path(__file__).resolve().parent.parent

environ.Env.read_env(str(BASE_DIR / ".env"))  # what the environment sets already stays

_SHORTEST_TOKEN = 20  # characters

_YES_OR_NO = dict.fromkeys(("true", "yes", "on", "1"), True) | dict.fromkeys(
    ("false", "no", "off", "0"), False
)


def _flag(variable: str, *, default: bool) -> bool:
    """Read a yes or no. Anything else is an error: a slip in HTTPS must not turn it off."""
    value = os.environ.get(variable, "").strip().lower()
    if value and value not in _YES_OR_NO:
        raise ImproperlyConfigured(f"{variable} must be true or false; it is {value!r}.")
    return _YES_OR_NO.get(value, default)


def _names(variable: str) -> list[str]:
    """Read names separated by commas, and perhaps spaces."""
    return [name.strip() for name in os.environ.get(variable, "").split(",") if name.strip()]


# Databases: which servers there are. What lives where is decided by the router.

EMBEDDED = not databases.any_url(os.environ)
PRIMARY_DATABASE = databases.PRIMARY
DATABASE_APPS = {"analytics": "analytics"}
DATABASE_ROUTERS = ["sharding.router.DatabaseRouter"]
_cluster = embedded.default_cluster()
DATABASES = databases.databases(
    os.environ, embedded={alias: _cluster.url(alias) for alias in _cluster.aliases}
)
DATABASE_PROCESSES = databases.processes(os.environ)
SHARD_SLOTS = os.environ.get("SHARD_SLOTS", "")

# Security

DEBUG = _flag("DEBUG", default=EMBEDDED)
ALLOWED_HOSTS = _names("ALLOWED_HOSTS")
CSRF_TRUSTED_ORIGINS = _names("CSRF_TRUSTED_ORIGINS")
SECRET_KEY = os.environ.get("SECRET_KEY", "")
if DEBUG:
    SECRET_KEY = SECRET_KEY or "django-insecure-for-development-on-this-machine-only"
elif not SECRET_KEY:
    raise ImproperlyConfigured(
        "SECRET_KEY is missing, and DEBUG is off. Set it to a long random text, e.g. from "
        "`python -c 'import secrets; print(secrets.token_urlsafe(50))'`."
    )
elif not ALLOWED_HOSTS:
    raise ImproperlyConfigured(
        "ALLOWED_HOSTS is missing, and DEBUG is off. Set it to the names under which the site is "
        "served, e.g. ALLOWED_HOSTS=app.example.com."
    )
# Off only where the site is tried without TLS in front of it, e.g. on one's own machine.
HTTPS = _flag("HTTPS", default=not DEBUG)
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = SECURE_SSL_REDIRECT = HTTPS
# Only behind a proxy that sets this header itself: without one, any client could send it.
BEHIND_PROXY = _flag("BEHIND_PROXY", default=False)
if BEHIND_PROXY:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
SECURE_REDIRECT_EXEMPT = [r"^metrics$"]  # asked without TLS, past the proxy
SECURE_HSTS_SECONDS = 31_536_000 if HTTPS else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = HTTPS

# With this token Prometheus reads /metrics; without one, staff alone.
METRICS_TOKEN = os.environ.get("METRICS_TOKEN", "")
if METRICS_TOKEN and len(METRICS_TOKEN) < _SHORTEST_TOKEN:
    raise ImproperlyConfigured(
        f"METRICS_TOKEN has less than {_SHORTEST_TOKEN} characters, which can be guessed. Make one "
        "with `openssl rand -hex 24`."
    )

# Application

INSTALLED_APPS = [
    "sharding",  # before the apps whose commands it replaces
    "users",
    "analytics",
    "unfold.apps.BasicAppConfig",  # before the admin, whose templates it replaces
    "unfold.contrib.filters",
    "config.apps.ProjectAdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "rest_framework",
    "knox",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "pgtrigger",
]
MIDDLEWARE = [
    "config.requests.RequestsMiddleware",
    "config.probes.ProbesMiddleware",  # before what looks at the host and the scheme
    "django.middleware.security.SecurityMiddleware",
    "config.policy.ContentPolicyMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "sharding.middleware.DatabaseSelectionMiddleware",
    "config.problems.ProblemsMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
ROOT_URLCONF = "config.urls"
WSGI_APPLICATION = "config.wsgi.application"
TEST_RUNNER = "tests.runner.Runner"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

AUTH_USER_MODEL = "users.User"
LOGIN_REDIRECT_URL = "admin:index"
_VALIDATORS = "django.contrib.auth.password_validation"
AUTH_PASSWORD_VALIDATORS = [
    {
        "NAME": f"{_VALIDATORS}.UserAttributeSimilarityValidator",
        "OPTIONS": {"user_attributes": ("email", "name")},
    },
    {"NAME": f"{_VALIDATORS}.MinimumLengthValidator"},
    {"NAME": f"{_VALIDATORS}.CommonPasswordValidator"},
    {"NAME": f"{_VALIDATORS}.NumericPasswordValidator"},
    {"NAME": "users.passwords.TokensEndWithPassword"},
]

LANGUAGE_CODE = "en-us"
TIME_ZONE = "UTC"
USE_TZ = True

# Counts requests, see the rates below: Django's 300 entries would forget most of the clients.
CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.locmem.LocMemCache",
        "OPTIONS": {"MAX_ENTRIES": 10_000},
    }
}

STATIC_URL = "static/"
WHITENOISE_USE_FINDERS = True  # serves the packages' files from where they are: no collectstatic

# The API

REST_FRAMEWORK = {
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["users.api.parsers.StorableJSONParser"],
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "users.api.authentication.TokenAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAdminUser"],
    "DEFAULT_THROTTLE_CLASSES": [
        "rest_framework.throttling.AnonRateThrottle",
        "rest_framework.throttling.UserRateThrottle",
    ],
    "DEFAULT_THROTTLE_RATES": api_settings.throttle_rates(os.environ),
    # Only a proxy's header names the client: a client could write what it likes there.
    "NUM_PROXIES": 1 if BEHIND_PROXY else 0,
    "DEFAULT_SCHEMA_CLASS": "config.schema.AutoSchema",
    "EXCEPTION_HANDLER": "config.problems.respond",
    "UNICODE_JSON": True,
}
REST_KNOX = {
    "AUTH_HEADER_PREFIX": "Bearer",
    "TOKEN_TTL": timedelta(hours=10),
    "TOKEN_LIMIT_PER_USER": 20,
}
SPECTACULAR_SETTINGS = api_settings.SPECTACULAR

# Requests under these paths work on the analytics database.
ANALYTICS_PATHS = ["/api/analytics"]

# The admin: https://unfoldadmin.com. Its index is the dashboard.
UNFOLD = {
    "SITE_TITLE": "Many databases",
    "SITE_HEADER": "Many databases",
    "SITE_SYMBOL": "hub",
    "SITE_URL": None,  # there are no other pages to return to
    "SITE_FAVICONS": [
        {
            "rel": "icon",
            "type": "image/svg+xml",
            "href": lambda request: static("analytics/icon.svg"),
        }
    ],
    "DASHBOARD_CALLBACK": "analytics.dashboard.dashboard",
    "STYLES": [lambda request: static("analytics/dashboard.css")],
    "SIDEBAR": {"show_search": False, "show_all_applications": False},
}

# A log of changes with more entries than this is replaced by comparing everything.
SYNC_LOG_LIMIT = 1_000_000

# "json" for machines, "text" for people.
LOG_FORMAT = os.environ.get("LOG_FORMAT") or ("text" if DEBUG else "json")
if LOG_FORMAT not in ("json", "text"):
    raise ImproperlyConfigured(f"LOG_FORMAT must be json or text; it is {LOG_FORMAT!r}.")
LOGGING = logs.configuration(json=LOG_FORMAT == "json")
