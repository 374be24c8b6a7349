"""The site under uvicorn: `python -m config.uvicorn`, with the variables of config/gunicorn.py.

`uvicorn config.asgi:application` closes its connections at the end just as well; but it then ends
by the signal it got (143), and its workers count metrics each for itself.
"""

import os
import tempfile

import uvicorn

from sharding import lifecycle

__all__ = ["main"]


def main() -> None:
    """Serve until SIGTERM, finish what is in hand, and exit with 0."""
    lifecycle.install()
    workers = int(os.environ.get("WEB_CONCURRENCY") or 1)
    with tempfile.TemporaryDirectory(prefix="metrics-") as folder:
        if workers > 1:
            os.environ.setdefault("PROMETHEUS_MULTIPROC_DIR", folder)
        uvicorn.run(
            "config.asgi:application",
            host=os.environ.get("HOST") or "127.0.0.1",
            port=int(os.environ.get("PORT") or 8000),
            workers=workers,
            timeout_graceful_shutdown=20,
            timeout_keep_alive=5,
            log_config=None,
            access_log=False,  # config.requests writes a line for each request
        )


if __name__ == "__main__":
    main()
