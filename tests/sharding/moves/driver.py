"""A process that moves slots and dies: `python -m tests.sharding.moves.driver LIFETIME`.

Each line of input, `action,slots,state,number`, makes it fork a child that begins a move, goes on
with one or gives it up, and exits at once, as by a crash, before the statement of that number after
the move came to that state. The answer is the child's exit code: CRASHED when it came that far,
FAILED when the move could not go on.
"""

import os
import sys
from typing import Any

import django

__all__ = ["CRASHED", "FAILED"]

CRASHED, FAILED = 9, 7


def main() -> None:
    from django.conf import settings

    django.setup()
    settings.SHARDING_MAP_LIFETIME = float(sys.argv[1])
    settings.SHARDING_CHECK_IDENTITY = False
    for line in sys.stdin:
        child = os.fork()
        if not child:
            os._exit(_child(*line.split(",")))
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _child(action: str, slots: str, state: str, number: str) -> int:
    from django.db import DatabaseError, connections

    from sharding.errors import MoveFailed, SlotMoved
    from sharding.moves import run
    from sharding.slots import read_ranges

    for alias in connections:
        connections[alias].settings_dict["OPTIONS"].pop("pool", None)  # slow to start
    crash = _Crash(state, int(number))
    for alias in connections:
        connections[alias].execute_wrappers.append(crash.count)
    try:
        if action == "begin":
            source, target, ranges = slots.split(":")
            chosen = sorted(read_ranges(ranges.replace("+", ",")))
            run.run(run.begin(source, target, chosen), crash.report)
        elif action == "resume":
            run.run(run.resume(), crash.report)
        else:
            run.abort(run.resume(), crash.report)
    except (MoveFailed, SlotMoved, DatabaseError) as error:
        print(f"driver: {error}", file=sys.stderr)
        return FAILED
    return 0


class _Crash:
    def __init__(self, state: str, number: int) -> None:
        self.state, self.left = state, number
        self.armed = False

    def report(self, progress: Any) -> None:
        self.armed |= progress.text == self.state

    def count(self, execute: Any, sql: Any, params: Any, many: Any, context: Any) -> Any:
        if self.armed:
            self.left -= 1
            if self.left < 0:
                os._exit(CRASHED)
        return execute(sql, params, many, context)


if __name__ == "__main__":
    main()
