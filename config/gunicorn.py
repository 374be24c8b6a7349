"""gunicorn's settings: `gunicorn -c config/gunicorn.py config.wsgi`."""

import os
import sys

bind = f"{os.environ.get('HOST') or '127.0.0.1'}:{os.environ.get('PORT') or '8000'}"
workers = int(os.environ.get("WEB_CONCURRENCY") or 2)
# No more than DATABASE_POOL_MAX, or threads wait for one another's connections.
threads = 4
timeout = 30
graceful_timeout = 20  # under the 30 s that orchestrators wait between SIGTERM and SIGKILL
keepalive = 5
# Loaded before the fork, the workers would share the sockets of one pool.
preload_app = False
# It would be a file in the user's home.
control_socket_disable = True
accesslog = "-"


def post_worker_init(worker: object) -> None:
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


def worker_exit(server: object, worker: object) -> None:
    """Close the worker's connections and pools, rather than let the servers find them dead."""
    from sharding.databases import DatabaseManager

    DatabaseManager().disconnect()
