"""Which process is which, and whether it is gone, beyond doubt, so that its share may be taken.

A number alone does not tell: numbers are used again, restart with the machine, and mean other processes in another
container. Where a doubt is left the answer is "not gone", and the lease decides a moment later.
"""

import os
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
_DEAD_STATES = (b"Z", b"X")  # killed, and its parent has not yet asked


@dataclass(frozen=True, slots=True)
class Process:
    """`boot`, `namespace` and `started` are empty where the system does not tell (macOS)."""

    boot: str  # differs after each start of the machine, and between machines
    namespace: str  # within which the number means something: containers have their own
    pid: int
    started: str  # in clock ticks since the start of the machine


def this_process(proc: Path = PROC) -> Process:
    pid = os.getpid()
    return Process(_boot(proc), _namespace(proc), pid, _state_and_start(pid, proc)[1])


def is_gone(process: Process, here: Process, proc: Path = PROC) -> bool:
    """Whether `process` surely does not run any more, as seen from the process `here`."""
    if process.boot != here.boot:
        return True
    if process.namespace != here.namespace:
        return False
    try:
        os.kill(process.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False  # somebody's, so it runs; whether it is the one meant, its lease will show
    state, started = _state_and_start(process.pid, proc)
    return state in _DEAD_STATES or bool(started and process.started and started != process.started)


def _state_and_start(pid: int, proc: Path) -> tuple[bytes, str]:
    """Letter of its state and the tick of its start; both empty when the system does not tell."""
    try:
        text = (proc / str(pid) / "stat").read_bytes()
    except OSError:
        return b"", ""
    fields = text.rpartition(b")")[2].split()  # the name before it may hold anything, brackets and spaces too
    if len(fields) < 20:
        return b"", ""
    return fields[0], fields[19].decode("ascii", "replace")


def _boot(proc: Path) -> str:
    try:
        return (proc / "sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _namespace(proc: Path) -> str:
    try:
        return str((proc / "self/ns/pid").readlink())
    except OSError:
        return ""
