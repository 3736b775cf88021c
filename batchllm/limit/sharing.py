"""What one lane needs to know of other processes that use the same key."""

from math import inf
from typing import Protocol


class Sharing(Protocol):
    """Read by the loop's thread without waiting; kept up to date by somebody else."""

    @property
    def is_shared(self) -> bool:
        """Whether there may be others at all."""

    @property
    def share(self) -> float:
        """Of the limit, in (0, 1]."""

    @property
    def lease_until_s(self) -> float:
        """After this moment the share is no longer promised."""

    @property
    def quiet_until_s(self) -> float:
        """A silence that the provider asked another process for."""

    @property
    def next_free_s(self) -> float:
        """When the next request may go, after those of a process that was here before."""


class Alone:
    """Nobody shares this lane's limit."""

    is_shared = False
    share = 1.0
    lease_until_s = inf
    quiet_until_s = -inf
    next_free_s = -inf
