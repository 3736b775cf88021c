from hypothesis import given
from hypothesis import strategies as st

from batchllm.dispatch.outcomes import cost_shares, shares

WEIGHTS = st.lists(st.integers(0, 5_000), min_size=1, max_size=40)


@given(st.integers(0, 10**9), WEIGHTS)
def test_shares_of_a_whole_number_add_up_to_it(total: int, weights: list[int]) -> None:
    parts = [part for part in shares(total, weights) if part is not None]
    assert len(parts) == len(weights)
    assert sum(parts) == total
    assert min(parts) >= 0


@given(st.floats(0, 1e6), WEIGHTS)
def test_shares_of_money_add_up_to_it_whatever_the_weights(cost: float, weights: list[int]) -> None:
    parts = [part for part in cost_shares(cost, weights) if part is not None]
    assert len(parts) == len(weights)
    assert abs(sum(parts) - cost) <= 1e-9 * cost + 1e-15  # a millionth of a nano-dollar


def test_what_is_not_known_is_known_of_no_row() -> None:
    assert list(shares(None, [1, 2])) == [None, None]
    assert list(cost_shares(None, [1, 2])) == [None, None]


def test_a_larger_row_has_the_larger_share() -> None:
    assert list(shares(100, [1, 3])) == [25, 75]
    assert list(cost_shares(1.0, [1, 3])) == [0.25, 0.75]
