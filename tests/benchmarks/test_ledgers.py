"""What is read from a ledger, held against counts made the slow way."""

from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchllm.simulate.ledger import Ledger, LedgerEntry
from benchmarks.ledgers import (
    RATE_WINDOW_S,
    Call,
    Limit,
    accepted_times,
    busiest,
    call_of,
    counted,
    fairness,
    longest_give_away_s,
    longest_overtaken_s,
    mean_latency_s,
    rates,
    refused_share,
    seconds_until,
    seconds_until_quiet,
    share_between,
    share_of,
    weighed,
)

INF = float("inf")
TICKS = st.lists(st.tuples(st.integers(0, 400), st.integers(1, 9)), max_size=60)


def calls_at(*times: float, **fields: object) -> list[Call]:
    return [Call(at_s, True, **fields) for at_s in times]


def steadily(rate: float, start_s: float, end_s: float) -> list[float]:
    return [start_s + number / rate for number in range(round((end_s - start_s) * rate))]


@given(TICKS, st.integers(1, 100))
def test_the_busiest_window_is_found_wherever_it_starts(ticks: list[tuple[int, int]], width: int) -> None:
    """Tenths of seconds: a busiest window starts at one of the calls."""
    amounts = sorted((tick / 10, float(amount)) for tick, amount in ticks)
    slow = max(
        (sum(amount for tick, amount in ticks if 0 <= tick - start < width) for start, _ in ticks), default=0
    )
    assert busiest(amounts, width / 10) == slow


def test_a_call_a_window_later_is_in_the_next_window() -> None:
    assert busiest(counted(calls_at(0.0, 0.5, 1.0)), 1.0) == 2
    assert busiest(counted(calls_at(0.0, 0.5, 0.99)), 1.0) == 3


def test_refused_calls_are_counted_and_have_no_weight() -> None:
    calls = [Call(0.0, True, tokens=10), Call(0.1, False), Call(0.2, True, tokens=5)]
    assert busiest(counted(calls), 1.0) == 3
    assert busiest(weighed(calls), 1.0) == 15
    assert accepted_times(calls) == [0.0, 0.2]


def test_a_limit_that_moves_allows_the_sum_of_its_parts() -> None:
    limit = Limit(((-INF, 50.0), (10.0, 25.0), (20.0, 50.0)))
    assert limit.amount(5.0, 25.0) == 5 * 50 + 10 * 25 + 5 * 50
    assert limit.amount(11.0, 12.0) == 25
    assert limit.amount(12.0, 11.0) == 0
    assert limit.highest == 50
    assert Limit.steady(3.0).amount(-1.0, 1.0) == 6


def test_the_share_of_a_steady_client_is_one_and_of_a_half_empty_one_a_half() -> None:
    limit = Limit.steady(50.0)
    assert share_of(counted(calls_at(*steadily(50.0, 3.0, 13.0))), limit) == pytest.approx(1.0)
    assert share_of(counted(calls_at(*steadily(25.0, 3.0, 13.0))), limit) == pytest.approx(0.5)
    assert share_of([], limit) == 0.0
    assert share_of([(1.0, 1.0)], limit) == 0.0


def test_what_is_skipped_counts_on_neither_side() -> None:
    times = steadily(5.0, 0.0, 10.0) + steadily(50.0, 10.0, 20.0)
    amounts = counted(calls_at(*times))
    assert share_of(amounts, Limit.steady(50.0)) == pytest.approx(0.55, abs=0.01)
    assert share_of(amounts, Limit.steady(50.0), skip_s=10.0) == pytest.approx(1.0, abs=0.01)
    assert share_of(amounts, Limit.steady(50.0), skip_s=30.0) == 0.0


def test_the_share_between_two_moments_does_not_ask_when_the_calls_came() -> None:
    times = steadily(50.0, 5.0, 10.0)
    assert share_between(times, Limit.steady(50.0), 0.0, 10.0) == pytest.approx(0.5)
    assert share_between([], Limit.steady(50.0), 0.0, 10.0) == 0.0
    assert share_between(times, Limit.steady(50.0), 10.0, 10.0) == 0.0


def test_the_refused_share_is_of_all_calls_or_of_the_later_ones() -> None:
    calls = [Call(0.0, False), Call(1.0, True), Call(2.0, True), Call(3.0, True)]
    assert refused_share(calls) == 0.25
    assert refused_share(calls, after_s=1.0) == 0.0
    assert refused_share([]) == 0.0


def test_a_steady_client_is_level_from_its_first_call_to_its_last() -> None:
    seen = rates(steadily(50.0, 100.0, 110.0), 100.0, 110.0, width_s=1.0, step_s=0.25)
    assert len(seen) == 41
    assert seen == pytest.approx([50.0] * 41, abs=2.0)


def test_a_rate_over_time_follows_a_change() -> None:
    times = steadily(50.0, 0.0, 10.0) + steadily(25.0, 10.0, 20.0)
    seen = rates(times, 0.0, 20.0, width_s=2.0, step_s=1.0)
    assert seen[5] == pytest.approx(50.0)
    assert seen[10] == pytest.approx(37.5)
    assert seen[15] == pytest.approx(25.0)


def test_a_rate_is_there_once_a_window_of_it_went_through() -> None:
    times = steadily(5.0, 0.0, 14.0) + steadily(50.0, 14.0, 30.0)
    found = seconds_until(times, 10.0, 50.0)
    assert found is not None
    assert 4.0 - 0.2 * RATE_WINDOW_S <= found <= 4.0
    assert seconds_until(times, 14.0, 50.0) == 0.0


def test_a_rate_that_never_comes_is_none() -> None:
    assert seconds_until(steadily(40.0, 0.0, 30.0), 10.0, 50.0) is None
    assert seconds_until([], 10.0, 50.0) is None
    assert seconds_until(steadily(50.0, 0.0, 20.0), 19.0, 50.0) is None
    assert seconds_until(steadily(50.0, 0.0, 30.0), 10.0, 50.0, end_s=11.0) is None


def test_refusals_are_over_after_the_last_loud_window() -> None:
    calls = [Call(at_s, True) for at_s in steadily(50.0, 0.0, 20.0)]
    assert seconds_until_quiet(calls, 0.0, 20.0, most_refused=0.05) == 0.0
    loud = [Call(4.0 + number / 100, False) for number in range(50)]
    single = [Call(15.0, False)]
    found = seconds_until_quiet([*calls, *loud, *single], 0.0, 20.0, most_refused=0.05)
    assert found == pytest.approx(4.49)
    assert seconds_until_quiet([*calls, *loud], 5.0, 20.0, most_refused=0.05) == 0.0


def test_a_row_is_overtaken_from_the_first_later_row_on() -> None:
    in_order = [Call(float(row), True, row=row) for row in range(10)]
    assert longest_overtaken_s(in_order) == 0.0
    late = [*in_order, Call(30.0, True, row=2)]
    assert longest_overtaken_s(late) == 0.0, "a second attempt does not count: the first was let in"
    starved = [call for call in late if (call.row, call.at_s) != (2, 2.0)]
    assert longest_overtaken_s(starved) == 27.0
    assert longest_overtaken_s([Call(5.0, False, row=1)]) == 0.0


@given(st.lists(st.tuples(st.integers(0, 15), st.integers(0, 300)), max_size=30))
def test_the_longest_overtaken_row_is_found(seen: list[tuple[int, int]]) -> None:
    first: dict[int, int] = {}
    for row, at in sorted(seen, key=lambda pair: pair[1]):
        first.setdefault(row, at)
    slow = max((first[a] - first[b] for a in first for b in first if b > a), default=0)
    assert longest_overtaken_s(Call(float(at), True, row=row) for row, at in seen) == max(slow, 0)


def test_fairness_is_the_least_of_the_most() -> None:
    assert fairness([10, 8]) == 0.8
    assert fairness([0, 0]) == 0.0
    assert fairness([]) == 0.0


def test_the_mean_latency_is_that_of_accepted_calls() -> None:
    calls = [Call(0.0, True, latency_s=1.0), Call(0.0, True, latency_s=3.0), Call(0.0, False)]
    assert mean_latency_s(calls) == 2.0
    assert mean_latency_s([]) == 0.0


def test_a_row_is_given_away_when_another_lane_takes_it() -> None:
    failed = [Call(1.0, True, row=1, latency_s=0.5), Call(2.0, True, row=2)]
    others = [Call(0.5, True, row=1), Call(2.5, True, row=1), Call(2.0, False, row=2), Call(6.0, True, row=2)]
    assert longest_give_away_s(failed, others) == 4.0
    assert longest_give_away_s([Call(1.0, True, row=9)], others) == INF
    assert longest_give_away_s([], others) == 0.0


def test_a_line_of_the_simulator_s_ledger_is_a_call(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger = Ledger(path)
    ledger.open()
    ledger.note(
        LedgerEntry(
            5.5, "/v1/chat/completions", "accepted", None, "stall", 2, "ab", 30, 4, ("a 17 the tent",), 0.25
        )
    )
    ledger.note(LedgerEntry(6.0, "/v1/chat/completions", "refused", 429, texts=("b 3 lid",)))
    ledger.note(LedgerEntry(7.0, "/v1/chat/completions", "rejected", 400))
    ledger.note(LedgerEntry(8.0, "/v1/chat/completions", "accepted", 200, texts=("hello there",)))
    ledger.close()
    found = [call_of(orjson.loads(line)) for line in path.read_bytes().splitlines()]
    assert found == [
        Call(5.5, True, 34, "a", 17, 2, None, 0.25),
        Call(6.0, False, 0, "b", 3, 0, 429, 0.0),
        None,
        None,
    ]
