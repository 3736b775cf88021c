"""When to try again, and how long to wait: tenacity with a clock of our own."""

from batchllm.client.retrying import wait_s, with_retries
from batchllm.records import Action, Billed, Failure, FailureCode


def failed(action: Action = Action.AGAIN, **more: object) -> Failure:
    return Failure(action, FailureCode.SERVER, "no")._replace(**more)


async def tried(*outcomes: object, retries: int = 4, max_wait_s: float = 60.0) -> tuple[object, list[float]]:
    left, slept = list(outcomes), []

    async def attempt() -> object:
        return left.pop(0)

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    return await with_retries(attempt, retries=retries, max_wait_s=max_wait_s, sleep=sleep), slept


async def test_the_first_answer_counts() -> None:
    assert await tried("a", "b") == ("a", [])


async def test_waits_grow_up_to_their_cap() -> None:
    outcome, slept = await tried(*[failed()] * 8, "a", retries=8)
    assert outcome == "a"
    assert 0.25 <= slept[0] <= 0.5
    assert all(10 <= second <= 20 for second in slept[6:])


async def test_the_provider_s_word_is_the_least_wait() -> None:
    _, slept = await tried(failed(retry_after_s=7.0), "a")
    assert 7.0 <= slept[0] <= 8.0


async def test_the_last_failure_comes_back_when_the_attempts_are_used_up() -> None:
    last = failed(message="last")
    outcome, slept = await tried(failed(), last, retries=1)
    assert (outcome, len(slept)) == (last, 1)


async def test_what_will_not_pass_or_was_paid_for_is_not_tried_again() -> None:
    late = failed(code=FailureCode.TIMEOUT)
    for failure in (failed(Action.ELSEWHERE), failed(Action.GIVE_UP), failed(billed=Billed.YES), late):
        assert await tried(failure, "a") == (failure, [])


async def test_a_wait_beyond_the_limit_is_not_begun() -> None:
    failure = failed(retry_after_s=61.0)
    assert await tried(failure, "a") == (failure, [])


def test_a_rate_limit_without_a_word_waits_at_least_half_a_second() -> None:
    assert wait_s(failed(code=FailureCode.RATE_LIMIT), 1, 0.0) >= 0.5
