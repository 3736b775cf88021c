"""How many connections this process may have: each is a file descriptor."""

import resource

#: For the journal, the parts, the input, and what else is open.
_RESERVED = 100
#: Some systems say "unlimited", which no call takes.
_ENOUGH = 16_384


def most_connections() -> int:
    """Half of what the system allows beside our own files; raises the soft limit as far as it goes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _ENOUGH if hard == resource.RLIM_INFINITY else min(_ENOUGH, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError):  # a sandbox forbids it: what is allowed will do
            wanted = soft
    return max(16, (wanted - _RESERVED) // 2)
