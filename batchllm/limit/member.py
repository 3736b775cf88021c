"""One lane of this process among all who use its limit: seen by the loop's thread and by the registry's."""

from collections.abc import Callable
from dataclasses import replace

from batchllm.limit.pool import Pool
from batchllm.limit.sharing import NOT_YET, Learned, Report, Standing


class Member:
    """`Membership`. `standing` and `reported` are replaced whole, never changed, so no lock is needed.

    `wake` asks the registry's thread for a beat at once, or, with True, to let the member go.
    """

    def __init__(self, pool: Pool, report: Report, wake: Callable[["Member", bool], None]) -> None:
        self.pool = pool
        self.reported = report
        self.standing = NOT_YET
        self.learned: Learned | None = None
        self.told: Callable[[], None] | None = None
        self.has_left = False
        self._wake = wake
        # Of the registry's thread alone:
        self.number: int | None = None  # in the file that is open now
        self.is_short = True  # waits for others to make room
        self.was_heard = False
        self.stored_learned: Learned | None = None

    def report(self, report: Report) -> None:
        known_s = max(self.reported.quiet_until_s, self.standing.quiet_until_s)
        self.reported = report
        if report.quiet_until_s > known_s:
            self._wake(self, False)

    def watch(self, told: Callable[[], None]) -> None:
        self.told = told

    def leave(self) -> None:
        if not self.has_left:
            self.has_left = True
            self._wake(self, True)

    def lower(self, granted: float) -> None:
        """At once, and never up: the lease and the rest stay as they are."""
        if granted < self.standing.share:
            self.standing = replace(self.standing, share=granted)

    def stand(self, standing: Standing) -> bool:
        """Whether this changes anything but the lease."""
        old, self.standing = self.standing, standing
        return replace(old, lease_until_s=standing.lease_until_s) != standing
