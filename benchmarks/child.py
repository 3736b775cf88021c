"""Starts one command and accounts for it alone: `python -S -E child.py REPORT CORE COMMAND...`.

A process of its own stands between the harness and the command, because Linux counts the memory of whoever
starts a process into the peak of what is started: 10 MB from here, several hundred from a harness that has
loaded numbers to compare. It imports nothing that is not needed for that. CORE is `-` for any core. REPORT
becomes a JSON object: code (negative: ended by that signal), wall_s, cpu_s (user and system, descendants that
were waited for included), peak_mb (of the largest of them).
"""

import json
import os
import sys
import time


def main() -> None:
    report, core, *command = sys.argv[1:]
    if core != "-":
        os.sched_setaffinity(0, {int(core)})
    start_s = time.monotonic()
    child = os.spawnvp(os.P_NOWAIT, command[0], command)  # noqa: S606 - the harness's own command
    _, status, used = os.wait4(child, 0)
    measured = {
        "code": os.waitstatus_to_exitcode(status),
        "wall_s": time.monotonic() - start_s,
        "cpu_s": used.ru_utime + used.ru_stime,
        # Kilobytes on Linux, bytes on macOS (getrusage(2) of each).
        "peak_mb": used.ru_maxrss / (1024 * 1024 if sys.platform == "darwin" else 1024),
    }
    with open(report, "w", encoding="utf-8") as file:  # noqa: PTH123 - pathlib takes as long as all the rest
        json.dump(measured, file)


if __name__ == "__main__":
    main()
