"""What to do after a failed attempt: the same lane later, another lane, two smaller requests, or the end.

One layer of retries, and it is this one. Retries are purchases, so what was paid for is asked again at most
`MAX_REASKS` times, whatever the cap on attempts says; refusals by a rate limit cost the row nothing.
"""

from dataclasses import dataclass
from enum import StrEnum

from tenacity import RetryCallState, Retrying, wait_exponential

from batchllm.records import LANE_TROUBLE, Action, Billed, Failure, FailureCode

#: Paid answers that were not accepted (they break the schema, say): asked again this often.
MAX_REASKS = 2
#: Attempts that found the lane down do not count as the row's; this many times its cap is the end all the same.
PROBES_PER_ATTEMPT = 3


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    max_attempts: int = 8
    backoff_s: float = 0.5
    max_backoff_s: float = 60.0


class Tries:
    """What one request has been through. `counted` is what its cap is held against."""

    __slots__ = ("counted", "probes", "reasks", "refused", "sent")

    def __init__(self) -> None:
        self.sent = 0
        self.counted = 0
        self.probes = 0
        self.reasks = 0
        self.refused = 0

    def note(self, failure: Failure, *, was_probe: bool) -> None:
        """Count a failed attempt where it belongs."""
        if failure.code is FailureCode.RATE_LIMIT:
            self.refused += 1
        elif failure.action is Action.SPLIT:
            pass  # what is too much for one request says nothing of its rows
        elif was_probe and _met_nobody(failure):
            pass  # no row makes a host unreachable; the lane's patience is what ends this
        elif failure.code in LANE_TROUBLE and (was_probe or _met_nobody(failure)):
            self.probes += 1
        else:
            self.counted += 1
            if failure.billed is Billed.YES:
                self.reasks += 1

    def forgive(self) -> None:
        """The last counted attempt met a lane that was failing for others, too: it says little of this row."""
        if self.counted:
            self.counted -= 1
            self.probes += 1

    def copy(self) -> "Tries":
        """For the halves of a request: what was tried with it was tried with them."""
        copy = Tries()
        copy.sent, copy.counted, copy.probes = self.sent, self.counted, self.probes
        copy.reasks, copy.refused = self.reasks, self.refused
        return copy

    def are_used_up(self, policy: RetryPolicy) -> bool:
        return (
            self.counted >= policy.max_attempts
            or self.reasks > MAX_REASKS
            or self.probes >= policy.max_attempts * PROBES_PER_ATTEMPT
        )


def _met_nobody(failure: Failure) -> bool:
    return failure.code is FailureCode.CONNECTION and failure.billed is Billed.NO


class Next(StrEnum):
    AGAIN = "again"  # any lane, after the wait
    ELSEWHERE = "elsewhere"  # any other lane, at once
    SPLIT = "split"
    GIVE_UP = "give_up"


@dataclass(frozen=True, slots=True)
class Decision:
    next: Next
    after_s: float = 0.0


def decide(failure: Failure, tries: Tries, rows: int, policy: RetryPolicy, jitter: float) -> Decision:
    """What a failed attempt leads to. `tries` already counts it; `jitter` is uniform in [0, 1)."""
    if failure.action is Action.SPLIT:
        return Decision(Next.SPLIT if rows > 1 else Next.GIVE_UP)
    if failure.action is Action.GIVE_UP or tries.are_used_up(policy):
        return Decision(Next.GIVE_UP)
    if failure.action is Action.ELSEWHERE:
        return Decision(Next.ELSEWHERE)
    # A time that the provider names silences the lane; the row may go to another one in the meantime.
    wait_s = 0.0 if failure.code is FailureCode.RATE_LIMIT else backoff_s(policy, tries.sent, jitter)
    return Decision(Next.AGAIN, wait_s)


def backoff_s(policy: RetryPolicy, attempt: int, jitter: float) -> float:
    """Capped exponential backoff with full jitter: uniform between 0 and the cap of this attempt (from 1)."""
    state = RetryCallState(_NEVER_RUN, None, (), {})
    state.attempt_number = max(1, attempt)
    high = wait_exponential(multiplier=policy.backoff_s, max=policy.max_backoff_s)(state)
    return float(high) * jitter


_NEVER_RUN = Retrying()


class RetryShare:
    """Retries may be a fifth of what is sent while fresh requests wait: a struggling lane is not hammered.

    With nothing fresh to send, retries go as they come; limits, breaker and the cap on attempts still hold.
    """

    __slots__ = ("_credit",)

    SHARE = 0.2
    SAVED = 50.0

    def __init__(self) -> None:
        self._credit = 10.0

    def note_fresh(self) -> None:
        self._credit = min(self.SAVED, self._credit + self.SHARE)

    def note_retry(self) -> None:
        self._credit = max(0.0, self._credit - 1.0)

    @property
    def allows_retry(self) -> bool:
        return self._credit >= 1.0
