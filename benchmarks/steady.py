"""Scenarios of a provider that stays as it is: its limits told, learned from headers, or found by being refused."""

from collections.abc import Mapping

from benchmarks import ledgers
from benchmarks.acts import PATIENCE_S, RATE, RPM, SAYS_NOTHING, SWIFT, accepted, one_lane, play, three_lanes
from benchmarks.ledgers import Call, Limit
from benchmarks.outcomes import Check, Outcome, all_answered, lane_checks, window_checks, windows
from benchmarks.stage import Ended, Lane, Stage

#: For what is learned without being told: from here on it counts.
_LEARNING_S = 20.0


def _told(stage: Stage, simulation: Mapping[str, object], seconds: float) -> Outcome:
    limit = Limit.steady(RATE)
    lane = Lane("told", {"limits": {"rpm": RPM}, "latency": SWIFT, **simulation}, {"rpm": RPM})

    def checks(calls: list[Call], _ended: Ended) -> tuple[Check, ...]:
        return (
            Check("share", ledgers.share_of(ledgers.counted(accepted(calls)), limit), low=0.98),
            Check("refused", ledgers.refused_share(calls), high=0.001),
            *window_checks(windows(ledgers.counted(calls), RATE), RATE),
        )

    return one_lane(stage, lane, int(RATE * seconds), limit, checks)


def rpm_told(stage: Stage) -> Outcome:
    """Requests a minute, told; the provider refills steadily."""
    return _told(stage, {}, stage.seconds(60))


def rpm_told_strict(stage: Stage) -> Outcome:
    """The same, enforced to the request in any second."""
    return _told(stage, {"enforcement": "second", "counts_refused": True}, stage.seconds(60))


def tpm_told(stage: Stage) -> Outcome:
    """Tokens a minute, told; prompts of 20 to 6,000 tokens mixed. No long one may starve."""
    tpm = 1_200_000.0
    limit = Limit.steady(tpm / 60)
    lane = Lane("told", {"limits": {"tpm": tpm}, "latency": SWIFT}, {"tpm": tpm})
    rows = int(stage.seconds(60) * tpm / 60 / 1_070)  # 1,070: mean tokens of a row, prompt and answer
    stage.serve([lane])
    stage.write_job("a", [lane], rows, tokens=(20, 6_000))
    ended = stage.start("a").wait(stage.seconds(60) + PATIENCE_S)
    calls = stage.calls(lane.name)
    share = ledgers.share_of(ledgers.weighed(calls), limit)
    seen = windows(ledgers.weighed(calls), tpm / 60)
    return Outcome(
        rows,
        ended.ok,
        share,
        ledgers.refused_share(calls),
        *seen,
        (
            all_answered(ended.ok, rows),
            Check("share", share, low=0.95),
            Check("refused", ledgers.refused_share(calls), high=0.001),
            Check("busiest 60 s", seen[1], high=1.02),
            # A row of 6,000 tokens is 0.3 s of the limit; ten seconds behind later rows is starving.
            Check("longest overtaken, s", ledgers.longest_overtaken_s(calls), high=10.0),
        ),
    )


def three_lanes_headers(stage: Stage) -> Outcome:
    """Three limits and latencies, of which the run is told nothing: the headers say it."""
    lanes, rates = three_lanes(is_told=False)
    seconds = stage.seconds(90)
    rows = int(sum(rates.values()) * seconds)
    ended = play(stage, lanes, rows, seconds)
    seen = {name: stage.calls(name) for name in rates}
    every = sorted((call for calls in seen.values() for call in calls), key=lambda call: call.at_s)
    share = ledgers.share_of(ledgers.counted(accepted(every)), Limit.steady(sum(rates.values())))
    return Outcome(
        rows,
        ended.ok,
        share,
        ledgers.refused_share(every),
        *windows(ledgers.counted(every), sum(rates.values())),
        (
            all_answered(ended.ok, rows),
            Check("share", share, low=0.95),
            Check("refused", ledgers.refused_share(every), high=0.02),
            *lane_checks(seen, rates, every[-1].at_s if every else 0.0),
        ),
    )


def _blind(stage: Stage, simulation: Mapping[str, object]) -> Outcome:
    rpm = 1800.0
    limit = Limit.steady(rpm / 60)
    lane = Lane("blind", {"limits": {"rpm": rpm}, "latency": SWIFT, **SAYS_NOTHING, **simulation})

    def checks(calls: list[Call], _ended: Ended) -> tuple[Check, ...]:
        amounts = ledgers.counted(accepted(calls))
        return (
            Check("share after 20 s", ledgers.share_of(amounts, limit, skip_s=_LEARNING_S), low=0.9),
            Check("refused", ledgers.refused_share(calls), high=0.02),
        )

    seconds = _LEARNING_S + stage.seconds(60)
    return one_lane(stage, lane, int(rpm / 60 * seconds), limit, checks)


def blind_retry_after(stage: Stage) -> Outcome:
    """No headers, nothing told: only refusals, which name the seconds to wait."""
    return _blind(stage, {"retry_after": "seconds"})


def blind_bare(stage: Stage) -> Outcome:
    """No headers, nothing told, refusals that name nothing."""
    return _blind(stage, {})


def blind_strict(stage: Stage) -> Outcome:
    """The same, enforced to the request in any second, refused requests counted."""
    return _blind(stage, {"enforcement": "second", "counts_refused": True})


def blind_concurrency(stage: Stage) -> Outcome:
    """A limit on requests in flight and on nothing else, told by bare refusals."""
    cap, latency = 40, {"median_s": 1.0, "p99_s": 2.5}
    lane = Lane("blind", {"limits": {"concurrency": cap}, "latency": latency, **SAYS_NOTHING})
    seconds = _LEARNING_S + stage.seconds(60)
    rows = int(cap / 1.1 * seconds)  # the mean of this log-normal is 1.08 s
    ended = play(stage, [lane], rows, seconds)
    calls = stage.calls(lane.name)
    rate = cap / (ledgers.mean_latency_s(calls) or 1.0)
    amounts = ledgers.counted(accepted(calls))
    return Outcome(
        rows,
        ended.ok,
        ledgers.share_of(amounts, Limit.steady(rate)),
        ledgers.refused_share(calls),
        *windows(ledgers.counted(calls), rate),
        (
            all_answered(ended.ok, rows),
            Check(
                "share after 20 s", ledgers.share_of(amounts, Limit.steady(rate), skip_s=_LEARNING_S), low=0.9
            ),
            Check("refused", ledgers.refused_share(calls), high=0.02),
        ),
    )
