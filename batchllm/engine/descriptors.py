"""How many connections this process may have: each is a file descriptor."""

import resource

from batchllm.errors import StorageError

#: For the journal, the parts, the input, and what else is open.
_RESERVED = 100
#: What of that a run has open at least, with some to spare: where few are allowed, no more is set aside.
_OWN = 40
#: Beside them four connections, each with its other end where the simulator is in this process.
_LEAST = _OWN + 8
#: Some systems say "unlimited", which no call takes.
_ENOUGH = 16_384


def most_connections(*, two_ends: bool) -> int:
    """What the system allows beside our own files; raises the soft limit as far as it goes.

    `two_ends`: those of the simulated providers are in this process, too.
    """
    allowed = _allowed()
    left = allowed - min(_RESERVED, max(_OWN, allowed // 2))
    return left // 2 if two_ends else left


def check_descriptors() -> None:
    """Before anything is opened. Raises StorageError where a run could not have its own files open, and ask."""
    allowed = _allowed()
    if allowed < _LEAST:
        raise StorageError(
            f"this process may have {allowed} files and connections open, and a run needs at least {_LEAST}",
            remedy="raise how many files this process may have open (ulimit -n), and start again",
        )


def _allowed() -> int:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _ENOUGH if hard == resource.RLIM_INFINITY else min(_ENOUGH, hard)
    if soft == resource.RLIM_INFINITY:
        return wanted
    if soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError):  # a sandbox forbids it: what is allowed will do
            return soft
    return wanted
