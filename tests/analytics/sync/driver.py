"""A process that syncs and dies: `python -m tests.analytics.sync.driver`.

Each line of input, `turn when step`, makes it fork a child that syncs the users and exits at once,
as by a crash, at that point of that batch. The answer is the child's exit code: CRASHED when it
came that far.
"""

import os
import sys

import django

__all__ = ["BATCH", "CRASHED", "PAGES"]

CRASHED = 9
BATCH = 2  # entries of the log
PAGES = 12  # pages of the table


def main() -> None:
    django.setup()
    for line in sys.stdin:
        child = os.fork()
        if not child:
            os._exit(_child(*line.split(maxsplit=2)))
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _child(turn: str, when: str, step: str) -> int:
    from django.db import connections

    from analytics.sync import full
    from tests.analytics.sync.steps import at
    from tests.analytics.sync.support import sync

    for alias in ("default", "analytics"):
        connections[alias].settings_dict["OPTIONS"].pop("pool", None)  # slow to start
    full._PAGES = PAGES
    with at((when, step.strip()), lambda: os._exit(CRASHED), turn=int(turn)):
        sync(batch_size=BATCH)
    return 0


if __name__ == "__main__":
    main()
