import math

from hypothesis import given
from hypothesis import strategies as st

from batchllm.events import Times

SECONDS = st.floats(1e-4, 1e4)


@given(st.lists(SECONDS, min_size=1, max_size=200), st.sampled_from([0.01, 0.5, 0.95, 0.99, 1.0]))
def test_a_quantile_is_within_a_hundredth_of_the_time_at_its_place(
    seconds: list[float], share: float
) -> None:
    times = Times()
    for one in seconds:
        times.note(one)
    exact = sorted(seconds)[math.ceil(share * len(seconds)) - 1]
    told = times.quantiles(share)
    assert told is not None
    assert abs(told[share] / exact - 1) < 0.0101


def test_there_is_none_without_times_and_zero_is_one() -> None:
    times = Times()
    assert times.quantiles(0.5) is None
    times.note(0.0)
    assert set(times.quantiles(0.99, 0.5) or {}) == {0.5, 0.99}
