"""What providers with limits see of a run, in virtual time: used to the full, and not passed."""

import math
import random
from collections.abc import Callable
from itertools import pairwise

import pytest
from saturation_rig import (
    BucketLimit,
    ConcurrencyLimit,
    Enforcing,
    LaneOf,
    LogLimit,
    saturate,
    sized_requests,
)

from batchllm.errors import ExitCode
from batchllm.testing import run_virtual, text_request

Latency = Callable[[float, random.Random], float]
RATE = 50.0
#: A blind lane has found its limit by then.
FOUND_S = 20.0


def run(*lanes: LaneOf, rows: int = 3_000) -> None:
    ending, _ = run_virtual(saturate(lanes, [text_request(number) for number in range(rows)]))
    assert ending.code is ExitCode.OK
    assert sum(len(lane.provider.accepted) for lane in lanes) == rows


def always(rate: float) -> Callable[[float], float]:
    return lambda _t: rate


def log_normal(median_s: float, p99_s: float) -> Latency:
    sigma = math.log(p99_s / median_s) / 2.326
    return lambda _t, dice: median_s * math.exp(sigma * dice.gauss(0, 1))


def openai_headers(rate: Callable[[float], float]) -> Callable[[float], dict[str, str]]:
    """One request was taken a moment ago, and is back after one interval."""
    return lambda t_s: {
        "x-ratelimit-limit-requests": f"{rate(t_s) * 60:.0f}",
        "x-ratelimit-remaining-requests": f"{rate(t_s) * 60 - 1:.0f}",
        "x-ratelimit-reset-requests": f"{1000 / rate(t_s):.0f}ms",
    }


@pytest.mark.parametrize("limit", [BucketLimit, LogLimit])
def test_a_told_limit_is_used_to_98_per_cent_and_never_refused(limit: type[LogLimit]) -> None:
    provider = Enforcing(limit(always(RATE)))
    run(LaneOf(provider, rpm=RATE * 60))
    assert provider.rate() >= 0.98 * RATE
    assert provider.refused == []
    assert provider.most_in(1.0) <= RATE
    assert provider.most_in(60.0) <= RATE * 60


def test_told_tokens_are_used_to_95_per_cent_and_no_long_prompt_waits_long() -> None:
    provider = Enforcing(BucketLimit(always(10_000), 60), tokens=True, latency=log_normal(1, 5))
    requests = sized_requests(400, 20, 6_000)
    run_virtual(saturate([LaneOf(provider, tpm=600_000)], requests))
    assert provider.rate() >= 0.95 * 10_000
    assert provider.refused == []
    assert provider.most_in(60.0) <= 600_000
    sizes = [amount for _, amount in provider.accepted]
    assert sizes == [float(request.tokens[0]) for request in requests], "first in, first out"


def test_limits_that_only_headers_tell_are_used_on_every_lane() -> None:
    rates = (50.0, 20.0, 30.0)
    latencies = (log_normal(0.2, 1), log_normal(2, 8), log_normal(4, 16))
    providers = [
        Enforcing(BucketLimit(always(rate)), latency=latency, headers=openai_headers(always(rate)))
        for rate, latency in zip(rates, latencies, strict=True)
    ]
    run(*[LaneOf(provider) for provider in providers], rows=6_000)
    end_s = min(provider.accepted[-1][0] for provider in providers)
    assert sum(provider.rate(0, end_s) for provider in providers) >= 0.95 * sum(rates)
    assert sum(len(provider.refused) for provider in providers) == 0


@pytest.mark.parametrize("retry_after_s", [None, 0.02, 1.0])
@pytest.mark.parametrize("limit", [BucketLimit, LogLimit])
def test_a_limit_that_nobody_tells_is_found_by_its_refusals(
    limit: type[LogLimit], retry_after_s: float | None
) -> None:
    provider = Enforcing(limit(always(RATE)), retry_after_s=retry_after_s)
    run(LaneOf(provider))
    assert provider.rate(FOUND_S) >= 0.9 * RATE
    assert provider.refused_share <= 0.02


@pytest.mark.parametrize("latency", [lambda _t, _dice: 0.3, log_normal(0.3, 1.5)])
@pytest.mark.parametrize("most", [5, 20])
def test_a_limit_of_calls_at_once_is_found_by_its_refusals(most: int, latency: Latency) -> None:
    dice = random.Random(1)
    mean_s = sum(latency(0, dice) for _ in range(20_000)) / 20_000
    provider = Enforcing(ConcurrencyLimit(most), latency=latency)
    run(LaneOf(provider), rows=int(60 * most / mean_s))
    assert provider.rate(FOUND_S) >= 0.9 * most / mean_s
    assert provider.refused_share <= 0.02


@pytest.mark.parametrize(
    ("told", "has_headers", "refused"), [(True, True, 0.0), (False, True, 0.0), (True, False, 0.01)]
)
def test_a_limit_that_is_halved_and_restored_is_followed(
    told: bool, has_headers: bool, refused: float
) -> None:
    def rate(t_s: float) -> float:
        return RATE / 2 if 20 <= t_s < 40 else RATE

    headers = openai_headers(rate) if has_headers else lambda _t: {}
    provider = Enforcing(BucketLimit(rate), headers=headers)
    run(LaneOf(provider, rpm=RATE * 60 if told else None))
    assert provider.rate(30, 40) >= 0.95 * RATE / 2
    assert provider.rate(50, 60) >= 0.95 * RATE
    assert provider.refused_share <= refused


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("limit", [BucketLimit, LogLimit])
def test_a_limit_that_nobody_tells_is_followed_when_it_is_halved_and_restored(
    limit: type[LogLimit], seed: int
) -> None:
    def rate(t_s: float) -> float:
        return RATE / 2 if 25 <= t_s < 55 else RATE

    provider = Enforcing(limit(rate), latency=log_normal(0.3, 1.0))
    provider.dice = random.Random(seed)
    run(LaneOf(provider), rows=3_500)
    assert provider.rate(35, 55) >= 0.9 * RATE / 2
    assert provider.rate(65, 75) >= 0.9 * RATE
    assert provider.refused_share <= 0.01
    late = sorted(t_s for t_s in provider.refused if 35 <= t_s < 55)
    assert all(third - first > 2.0 for first, third in zip(late, late[2:], strict=False)), (
        "one or two at a time"
    )


class Outage:
    """Refuses everything for a while."""

    def __init__(self, limit: LogLimit | BucketLimit, start_s: float, end_s: float) -> None:
        self._limit, self._start_s, self._end_s = limit, start_s, end_s

    def admits(self, t_s: float, amount: float, in_flight: int) -> bool:
        return not self._start_s <= t_s < self._end_s and self._limit.admits(t_s, amount, in_flight)


@pytest.mark.parametrize("outage_s", [1, 2, 4])
@pytest.mark.parametrize("limit", [BucketLimit, LogLimit])
def test_a_lane_that_nobody_tells_comes_back_after_a_spell_of_refusals(
    limit: type[LogLimit], outage_s: float
) -> None:
    provider = Enforcing(Outage(limit(always(RATE)), 25.0, 25.0 + outage_s), latency=log_normal(0.3, 1.0))
    run(LaneOf(provider), rows=4_000)
    assert provider.rate(40, 75) >= 0.85 * RATE
    assert provider.refused_share <= 0.01


def test_what_could_have_gone_in_a_silence_does_not_go_at_its_end() -> None:
    provider = Enforcing(LogLimit(lambda t_s: RATE / 5 if 20 <= t_s < 22 else RATE))
    run(LaneOf(provider, rpm=RATE * 60), rows=2_000)
    sent = sorted([*(t_s for t_s, _ in provider.accepted), *provider.refused])
    assert all(later - earlier > 0.9 / RATE for earlier, later in pairwise(sent) if later > 20.1)


@pytest.mark.parametrize("rpm", [RATE * 60, None])
def test_latency_that_grows_tenfold_costs_rate_for_a_moment_only(rpm: float | None) -> None:
    provider = Enforcing(BucketLimit(always(RATE)), latency=lambda t_s, _dice: 3.0 if 30 <= t_s < 90 else 0.3)
    run(LaneOf(provider, rpm=rpm), rows=6_500)
    assert provider.rate(40, 90) >= 0.9 * RATE
    assert provider.rate(100, 120) >= 0.9 * RATE


def test_calls_that_are_never_answered_cost_no_rate_and_end() -> None:
    provider = Enforcing(BucketLimit(always(RATE)), stalls=0.002)
    ending, _ = run_virtual(
        saturate([LaneOf(provider, rpm=RATE * 60)], [text_request(number) for number in range(4_000)])
    )
    assert ending.code is ExitCode.OK
    assert provider.rate(0, 75) >= 0.98 * RATE
    assert provider.accepted[-1][0] <= 4_000 / RATE + 65, "the last ones wait for a deadline, or for two"


def test_a_silence_is_kept_to_the_second_and_the_other_lane_goes_on() -> None:
    quiet = Enforcing(LogLimit(lambda t_s: 0 if t_s < 10 else RATE), retry_after_s=10.0)
    other = Enforcing(BucketLimit(always(RATE)))
    run(LaneOf(quiet, rpm=RATE * 60), LaneOf(other, rpm=RATE * 60), rows=1_500)
    assert all(t_s >= 10 for t_s, _ in quiet.accepted)
    assert len(quiet.refused) <= 4
    assert other.rate(0, 10) >= 0.98 * RATE
