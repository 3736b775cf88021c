from hypothesis import given
from hypothesis import strategies as st

from batchllm.records import Action, Billed, Failure, FailureCode
from batchllm.retry import Next, RetryPolicy, RetryShare, Tries, backoff_s, decide

POLICY = RetryPolicy(max_attempts=5, backoff_s=0.5, max_backoff_s=60.0)


def failure(action: Action, code: FailureCode = FailureCode.SERVER, **more: object) -> Failure:
    return Failure(action, code, "why", **more)  # type: ignore[arg-type] # fields by name


def tried(times: int, cause: Failure) -> Tries:
    tries = Tries()
    for _ in range(times):
        tries.sent += 1
        tries.note(cause, was_probe=False)
    return tries


@given(st.integers(1, 500), st.floats(0, 1, exclude_max=True))
def test_backoff_stays_between_zero_and_its_cap(attempt: int, jitter: float) -> None:
    wait_s = backoff_s(POLICY, attempt, jitter)
    assert 0 <= wait_s <= min(60.0, 0.5 * 2.0 ** (attempt - 1))


def test_backoff_doubles() -> None:
    assert [backoff_s(POLICY, attempt, 1.0) for attempt in (1, 2, 3, 4)] == [0.5, 1.0, 2.0, 4.0]


def test_a_time_that_the_provider_names_is_the_lane_s_and_not_the_row_s() -> None:
    cause = failure(Action.AGAIN, retry_after_s=900.0)
    assert decide(cause, tried(1, cause), 1, POLICY, 1.0).after_s == 0.5


def test_a_probe_that_met_nobody_costs_the_row_nothing() -> None:
    cause = failure(Action.AGAIN, FailureCode.CONNECTION, billed=Billed.NO)
    tries = Tries()
    for _ in range(1_000):
        tries.note(cause, was_probe=True)
    assert not tries.are_used_up(POLICY)
    for _ in range(15):
        tries.note(cause, was_probe=False)
    assert tries.are_used_up(POLICY)


def test_the_last_attempt_gives_up() -> None:
    cause = failure(Action.AGAIN)
    assert decide(cause, tried(4, cause), 1, POLICY, 0.5).next is Next.AGAIN
    assert decide(cause, tried(5, cause), 1, POLICY, 0.5).next is Next.GIVE_UP


def test_refusals_by_a_rate_limit_never_use_up_a_row() -> None:
    cause = failure(Action.AGAIN, FailureCode.RATE_LIMIT)
    assert decide(cause, tried(1000, cause), 1, POLICY, 0.5).next is Next.AGAIN


def test_what_was_paid_is_asked_again_twice_at_most() -> None:
    cause = failure(Action.AGAIN, FailureCode.SCHEMA_MISMATCH, billed=Billed.YES)
    assert decide(cause, tried(2, cause), 1, POLICY, 0.5).next is Next.AGAIN
    assert decide(cause, tried(3, cause), 1, POLICY, 0.5).next is Next.GIVE_UP


def test_probes_of_a_resting_lane_count_a_third() -> None:
    tries = Tries()
    cause = failure(Action.AGAIN)
    for _ in range(14):
        tries.note(cause, was_probe=True)
    assert not tries.are_used_up(POLICY)
    tries.note(cause, was_probe=True)
    assert tries.are_used_up(POLICY)


def test_only_a_packed_request_is_split() -> None:
    cause = failure(Action.SPLIT, FailureCode.INVALID_REQUEST)
    assert decide(cause, tried(1, cause), 8, POLICY, 0.5).next is Next.SPLIT
    assert decide(cause, tried(1, cause), 1, POLICY, 0.5).next is Next.GIVE_UP


def test_elsewhere_goes_elsewhere() -> None:
    cause = failure(Action.ELSEWHERE, FailureCode.QUOTA)
    assert decide(cause, tried(1, cause), 1, POLICY, 0.5).next is Next.ELSEWHERE


@given(st.lists(st.booleans(), max_size=400))
def test_retries_are_at_most_a_fifth_of_fresh_calls_beyond_the_first_ten(wanted: list[bool]) -> None:
    share, fresh, retries = RetryShare(), 0, 0
    for is_retry in wanted:
        if is_retry and share.allows_retry:
            share.note_retry()
            retries += 1
        elif not is_retry:
            share.note_fresh()
            fresh += 1
    assert retries <= 10 + fresh * 0.2 + 1e-9
