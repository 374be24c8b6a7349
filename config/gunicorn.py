"""gunicorn's settings: `gunicorn -c config/gunicorn.py config.wsgi`."""

import atexit
import os
import shutil
import sys
import tempfile
from typing import Any

bind = f"{os.environ.get('HOST') or '127.0.0.1'}:{os.environ.get('PORT') or '8000'}"
workers = int(os.environ.get("WEB_CONCURRENCY") or 2)
# With more threads than connections they would wait for one another's.
threads = min(4, int(os.environ.get("DATABASE_POOL_MAX") or 4))
timeout = 30
graceful_timeout = 20  # under the 30 s that orchestrators wait between SIGTERM and SIGKILL
keepalive = 5
# It would be a file in the user's home.
control_socket_disable = True
# config.requests writes a line for each request, with its id.
accesslog = None
if os.environ.get("LOG_FORMAT") != "text":
    _json = {
        "()": "pythonjsonlogger.json.JsonFormatter",
        "fmt": "{levelname}{name}{message}",
        "style": "{",
        "timestamp": True,
        "rename_fields": {"levelname": "level", "name": "logger"},
    }
    logconfig_dict = {
        "formatters": {"json": _json},
        "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "json"}},
        "loggers": {
            "gunicorn.error": {"level": "INFO", "handlers": ["console"], "propagate": False},
            "gunicorn.access": {"level": "CRITICAL"},
        },
    }

_CLOSING = 2  # seconds
_METRICS = "PROMETHEUS_MULTIPROC_DIR"

# Here the workers count, each in files of its own, so that any of them can answer for all. Set
# before anything is loaded: prometheus_client looks for it once.
_made = "" if os.environ.get(_METRICS) else tempfile.mkdtemp(prefix="metrics-")
os.environ.setdefault(_METRICS, _made)


def pre_fork(server: Any, worker: Any) -> None:
    """With --preload, end what loading the site has opened: nobody would use it again."""
    _disconnect()


def post_fork(server: Any, worker: Any) -> None:
    """Let the worker end its wait for requests before the master kills it, in time to say
    goodbye to the databases."""
    worker.cfg.set("graceful_timeout", max(worker.cfg.graceful_timeout - _CLOSING, 0))


def post_worker_init(worker: Any) -> None:
    """End at once where a server is not the shard that its alias says; one that is down may come
    back.
    """
    from sharding import identity
    from sharding.databases import DatabaseManager
    from sharding.errors import WrongDatabase

    try:
        identity.require_all()
    except WrongDatabase as error:
        print(error, file=sys.stderr)
        sys.exit(3)  # by which gunicorn knows that a worker could not start, and ends
    finally:
        DatabaseManager().disconnect()


def worker_exit(server: Any, worker: Any) -> None:
    """Close the worker's connections and pools, rather than let the servers find them dead."""
    _disconnect()


def child_exit(server: Any, worker: Any) -> None:
    """Take a worker that has ended, however it did, out of the gauges."""
    from prometheus_client.multiprocess import mark_process_dead

    mark_process_dead(worker.pid)


def on_exit(server: Any) -> None:
    """Delete the metrics, unless a successor (SIGUSR2) goes on with them."""
    if _made and not server.reexec_pid:
        shutil.rmtree(_made, ignore_errors=True)


def _disconnect() -> None:
    from django.conf import settings

    if settings.configured:
        from sharding.databases import DatabaseManager

        DatabaseManager().disconnect()


# With --preload, an error while the site is loaded ends the master before it forks.
atexit.register(_disconnect)
