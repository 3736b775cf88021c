from math import inf

from batchllm.limit.allowance import Allowance


def test_the_lower_of_what_is_told_and_heard_is_known() -> None:
    allowance = Allowance(3_000)
    assert allowance.known == 3_000
    assert allowance.hear(1_500)
    assert (allowance.known, allowance.lower_than_told) == (1_500, 1_500)
    assert allowance.hear(6_000)
    assert (allowance.known, allowance.lower_than_told) == (3_000, None)
    assert Allowance(None).known == inf


def test_the_same_limit_again_is_no_news() -> None:
    allowance = Allowance(None)
    assert allowance.hear(1_500)
    assert not allowance.hear(1_500.0001)


def test_a_limit_that_is_raised_frees_what_refusals_taught_and_one_that_is_lowered_does_not() -> None:
    allowance = Allowance(None)
    allowance.hear(3_000)
    for limit, is_free in ((1_500, False), (3_000, True)):
        allowance.governor.note_refused(1.0, 1.0, 1.0, silence_s=0.0, most=50.0)
        allowance.hear(limit)
        assert allowance.governor.is_free == is_free


def test_what_refusals_taught_is_not_divided_and_ends_where_the_known_limit_is() -> None:
    allowance = Allowance(3_000)
    allowance.governor.note_sent(1.0, 0.0)
    allowance.governor.note_refused(1.0, 1.0, 1.0, silence_s=0.0, most=50.0)
    taught = allowance.per_minute(1.0, 1.0)
    assert taught < 3_000
    assert allowance.per_minute(1.0, 0.5) == min(taught, 1_500)
    assert allowance.per_minute(1.0, taught / 3_000 / 2) == taught / 2
    assert allowance.governor.is_free
