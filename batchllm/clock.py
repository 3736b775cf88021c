"""The two clocks, and the port by which tests move them.

Durations, limits and deadlines use `monotonic_s` only; `wall_s` appears in records and nowhere else, so that a
jump of the wall clock changes no limit, deadline or age.
"""

import time
from typing import Protocol


class Clock(Protocol):
    def monotonic_s(self) -> float:
        """Seconds from an arbitrary start; never goes back."""

    def wall_s(self) -> float:
        """Seconds since 1970 (UTC), as the machine believes."""


class SystemClock:
    monotonic_s = staticmethod(time.monotonic)  # asked a dozen times a row
    wall_s = staticmethod(time.time)
