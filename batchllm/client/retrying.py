"""Further attempts after one that may succeed later: the one layer of retries of the control plane.

tenacity does the waiting. What the provider says is the least wait; a wait longer than `max_wait_s` is not begun, and
the caller is told instead.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_result

from batchllm.records import Action, Billed, Failure, FailureCode
from batchllm.retry import RetryPolicy, backoff_s

_T = TypeVar("_T")
_POLICY = RetryPolicy(backoff_s=0.5, max_backoff_s=20.0)
#: A refusal without a word on the wait asks for at least so much, or the retries are over before anything moved.
_LEAST_RATE_WAIT_S = 0.5


def wait_s(failure: Failure, attempt: int, jitter: float) -> float:
    """How long to wait before the next attempt; `attempt` counts from 1, `jitter` is uniform in [0, 1)."""
    own_s = backoff_s(_POLICY, attempt, 0.5 + jitter / 2)
    if failure.code is FailureCode.RATE_LIMIT:
        own_s = max(own_s, _LEAST_RATE_WAIT_S)
    if failure.retry_after_s is None:
        return own_s
    return failure.retry_after_s + min(own_s, 0.1 * failure.retry_after_s + 0.05) * jitter


async def with_retries(
    attempt: Callable[[], Awaitable[_T | Failure]],
    *,
    retries: int,
    max_wait_s: float,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> _T | Failure:
    """The first outcome that is no failure, or the last failure. An answer that was paid for is not bought again."""

    def wait(state: RetryCallState) -> float:
        if state.outcome is None:
            return 0.0
        return wait_s(state.outcome.result(), state.attempt_number, random.random())  # noqa: S311 - jitter

    retrying = AsyncRetrying(
        sleep=sleep,
        retry=retry_if_result(lambda outcome: isinstance(outcome, Failure) and _may_pass(outcome)),
        wait=wait,
        stop=lambda state: state.attempt_number > retries or state.upcoming_sleep > max_wait_s,
        retry_error_callback=lambda state: None if state.outcome is None else state.outcome.result(),
    )
    found: _T | Failure = await retrying(attempt)
    return found


def _may_pass(failure: Failure) -> bool:
    """After a deadline the caller decides: nobody knows what was paid, and as long a time would pass again."""
    is_over = failure.billed is Billed.YES or failure.code is FailureCode.TIMEOUT
    return failure.action is Action.AGAIN and not is_over
