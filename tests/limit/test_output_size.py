from hypothesis import given
from hypothesis import strategies as st

from batchllm.limit.output_size import OutputSize, PromptSize


@given(st.lists(st.integers(0, 10_000), max_size=200), st.one_of(st.none(), st.integers(0, 500)))
def test_the_estimate_never_exceeds_the_cap(outputs: list[int], cap: int | None) -> None:
    size = OutputSize(cap)
    for tokens in outputs:
        size.learn(tokens)
        assert size.estimate() >= 0
        assert cap is None or size.estimate() <= cap


def test_it_starts_with_the_cap_and_learns_what_answers_really_have() -> None:
    size = OutputSize(4_000)
    assert size.estimate() == 4_000
    for _ in range(300):
        size.learn(20)
    assert 20 <= size.estimate() <= 25


def test_it_covers_most_of_outputs_that_vary() -> None:
    size = OutputSize(None)
    outputs = [10, 30, 20, 40, 25] * 60
    for tokens in outputs:
        size.learn(tokens)
    assert sum(tokens <= size.estimate() for tokens in outputs) >= 0.9 * len(outputs)


def test_it_follows_a_change() -> None:
    size = OutputSize(None)
    for _ in range(100):
        size.learn(10)
    for _ in range(100):
        size.learn(500)
    assert size.estimate() >= 480


def test_prompts_are_corrected_by_what_the_provider_counts() -> None:
    size = PromptSize()
    assert size.correct(1_000) == 1_000
    for _ in range(200):
        size.learn(1_000, 1_300)
    assert 1_290 <= size.correct(1_000) <= 1_300


def test_a_count_that_is_absurd_corrects_little() -> None:
    size = PromptSize()
    for told in (0, -5, 10**12):
        size.learn(100, told)
    size.learn(0, 100)
    assert 0 < size.correct(1_000) < 1_200
