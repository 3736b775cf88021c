import pytest
from dispatch_rig import Rig
from hypothesis import given
from hypothesis import strategies as st

from batchllm.dispatch import Lane
from batchllm.dispatch.outcomes import CallFacts, cost_shares, done_records, shares
from batchllm.records import Answer, AttemptRecord, Reading, Request, RowDone, RowRef, Usage
from batchllm.testing import ScriptedProvider, echo, run_virtual

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


FACTS = CallFacts(started_at=7.0, latency_s=0.25, cost_usd=0.5)


def packed(rows: int, answers: int | None = None) -> tuple[Request, Reading]:
    request = Request(
        tuple(RowRef(at, f"k{at}", b"[]") for at in range(rows)),
        [f"text {at}" for at in range(rows)],
        (10,) * rows,
        tuple(bytes([at]) for at in range(rows)),
    )
    told = tuple(Answer(f"answer {at}", "stop") for at in range(rows if answers is None else answers))
    return request, Reading(told, Usage(20, 8, 4, 2), "echoed", "req-1")


def make_lane() -> Lane:
    async def main() -> Lane:
        return Rig(ScriptedProvider(echo)).lanes[0]

    return run_virtual(main())


def test_a_call_is_one_attempt_and_a_line_for_each_row() -> None:
    lane = make_lane()
    for rows in (1, 2):
        attempt, *lines = done_records(lane, *packed(rows), FACTS, 3)
        assert attempt == AttemptRecord(
            0, rows, 0, "echoed", 20, 8, 4, 2, 0.5, "yes", 200, None, 250.0, 7.0, "req-1"
        )
        own = (20 // rows, 8 // rows, 0.5 / rows, 250.0, 3, "req-1")
        assert lines == [
            RowDone(RowRef(at, f"k{at}", b"[]"), 0, f"answer {at}", "stop", "echoed", *own, bytes([at]))
            for at in range(rows)
        ]


@pytest.mark.parametrize(("rows", "answers"), [(1, 0), (1, 2), (3, 2)])
def test_answers_that_are_not_as_many_as_the_rows_are_a_bug(rows: int, answers: int) -> None:
    lane = make_lane()
    with pytest.raises(ValueError, match="zip"):
        done_records(lane, *packed(rows, answers), FACTS, 1)
