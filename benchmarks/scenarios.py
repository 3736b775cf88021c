"""The scenarios of saturation: what the provider is like, what the run is told, and what must come out.

Each is a function of a stage. The figures beside `low` and `high` are the ones to reach; nothing here waits on
anything but the runs themselves.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks import ledgers
from benchmarks.ledgers import Call, Limit
from benchmarks.stage import Ended, Lane, Stage

#: A steady provider of 3,000 requests a minute that answers in about 0.3 s.
_RPM = 3000.0
_RATE = _RPM / 60
_SWIFT: Mapping[str, object] = {"median_s": 0.3, "p99_s": 1.0}
#: A run may take this much longer than its rows need at the full rate, then it is stopped.
_PATIENCE_S = 60.0
#: For what is learned without being told: from here on it counts.
_LEARNING_S = 20.0
_SAYS_NOTHING: Mapping[str, object] = {"headers": "none", "retry_after": "none"}


@dataclass(frozen=True, slots=True)
class Check:
    """One figure against its bounds. None: it never happened."""

    what: str
    value: float | None
    low: float | None = None
    high: float | None = None

    @property
    def is_met(self) -> bool:
        if self.value is None:
            return False
        return (self.low is None or self.value >= self.low) and (self.high is None or self.value <= self.high)


@dataclass(frozen=True, slots=True)
class Outcome:
    """`share` of the ideal rate, `refused` of all calls; the busiest windows as shares of what the limit allows."""

    rows: int
    answered: int
    share: float
    refused: float
    busiest_second: float
    busiest_minute: float
    checks: tuple[Check, ...] = field(default_factory=tuple)

    @property
    def is_met(self) -> bool:
        return all(check.is_met for check in self.checks)


def _windows(amounts: Sequence[tuple[float, float]], rate: float) -> tuple[float, float]:
    return ledgers.busiest(amounts, 1.0) / rate, ledgers.busiest(amounts, 60.0) / (60 * rate)


def _window_checks(seen: tuple[float, float], rate: float) -> tuple[Check, ...]:
    """Two in a hundred, or one call where that is less than one."""
    return tuple(
        Check(what, value, high=max(1.02, 1 + 1 / (rate * width_s)) + 1e-9)
        for what, value, width_s in zip(("busiest 1 s", "busiest 60 s"), seen, (1.0, 60.0), strict=True)
    )


def _all_answered(answered: int, rows: int) -> Check:
    return Check("answered", answered / rows, low=1.0)


def _play(stage: Stage, lanes: Sequence[Lane], rows: int, ideal_s: float) -> Ended:
    """One run of one job over all lanes."""
    stage.serve(lanes)
    stage.write_job("a", lanes, rows)
    return stage.start("a").wait(ideal_s + _PATIENCE_S)


def _one_lane(
    stage: Stage,
    lane: Lane,
    rows: int,
    limit: Limit,
    checks: Callable[[list[Call], Ended], tuple[Check, ...]],
) -> Outcome:
    ended = _play(stage, [lane], rows, rows / limit.highest)
    calls = stage.calls(lane.name)
    windows = _windows(ledgers.counted(calls), limit.highest)
    return Outcome(
        rows,
        ended.ok,
        ledgers.share_of(ledgers.counted(_accepted(calls)), limit),
        ledgers.refused_share(calls),
        *windows,
        (_all_answered(ended.ok, rows), *checks(calls, ended)),
    )


def _accepted(calls: Sequence[Call]) -> list[Call]:
    return [call for call in calls if call.is_accepted]


def _told(
    stage: Stage, simulation: Mapping[str, object], seconds: float, *, timeout_s: float | None = None
) -> Outcome:
    limit = Limit.steady(_RATE)
    lane = Lane("told", {"limits": {"rpm": _RPM}, "latency": _SWIFT, **simulation}, {"rpm": _RPM}, timeout_s)

    def checks(calls: list[Call], _ended: Ended) -> tuple[Check, ...]:
        return (
            Check("share", ledgers.share_of(ledgers.counted(_accepted(calls)), limit), low=0.98),
            Check("refused", ledgers.refused_share(calls), high=0.001),
            *_window_checks(_windows(ledgers.counted(calls), _RATE), _RATE),
        )

    return _one_lane(stage, lane, int(_RATE * seconds), limit, checks)


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
    lane = Lane("told", {"limits": {"tpm": tpm}, "latency": _SWIFT}, {"tpm": tpm})
    rows = int(stage.seconds(60) * tpm / 60 / 1_070)  # 1,070: mean tokens of a row, prompt and answer
    stage.serve([lane])
    stage.write_job("a", [lane], rows, tokens=(20, 6_000))
    ended = stage.start("a").wait(stage.seconds(60) + _PATIENCE_S)
    calls = stage.calls(lane.name)
    share = ledgers.share_of(ledgers.weighed(calls), limit)
    windows = _windows(ledgers.weighed(calls), tpm / 60)
    return Outcome(
        rows,
        ended.ok,
        share,
        ledgers.refused_share(calls),
        *windows,
        (
            _all_answered(ended.ok, rows),
            Check("share", share, low=0.95),
            Check("refused", ledgers.refused_share(calls), high=0.001),
            Check("busiest 60 s", windows[1], high=1.02),
            # A row of 6,000 tokens is 0.3 s of the limit; ten seconds behind later rows is starving.
            Check("longest overtaken, s", ledgers.longest_overtaken_s(calls), high=10.0),
        ),
    )


def three_lanes_headers(stage: Stage) -> Outcome:
    """Three limits and latencies, of which the run is told nothing: the headers say it."""
    lanes, rates = _three_lanes(is_told=False)
    seconds = stage.seconds(90)
    rows = int(sum(rates.values()) * seconds)
    ended = _play(stage, lanes, rows, seconds)
    seen = {name: stage.calls(name) for name in rates}
    every = sorted((call for calls in seen.values() for call in calls), key=lambda call: call.at_s)
    share = ledgers.share_of(ledgers.counted(_accepted(every)), Limit.steady(sum(rates.values())))
    return Outcome(
        rows,
        ended.ok,
        share,
        ledgers.refused_share(every),
        *_windows(ledgers.counted(every), sum(rates.values())),
        (
            _all_answered(ended.ok, rows),
            Check("share", share, low=0.95),
            Check("refused", ledgers.refused_share(every), high=0.02),
            *_lane_checks(seen, rates, every[-1].at_s if every else 0.0),
        ),
    )


def _lane_checks(
    seen: Mapping[str, Sequence[Call]], rates: Mapping[str, float], end_s: float, low: float | None = None
) -> tuple[Check, ...]:
    """Share of each lane against its own limit, from its first call to the end of all."""
    checks = []
    for name, calls in seen.items():
        times = ledgers.accepted_times(calls)
        share = ledgers.share_between(times, Limit.steady(rates[name]), times[0], end_s) if times else 0.0
        checks.append(Check(f"share of {name}", share, low=low))
    return tuple(checks)


def _three_lanes(*, is_told: bool) -> tuple[list[Lane], dict[str, float]]:
    lanes, rates = [], {}
    for name, rpm, median_s, p99_s in (
        ("swift", 1800.0, 0.2, 1.0),
        ("steady", 900.0, 1.5, 8.0),
        ("slow", 600.0, 8.0, 20.0),
    ):
        simulation = {"limits": {"rpm": rpm}, "latency": {"median_s": median_s, "p99_s": p99_s}}
        lanes.append(Lane(name, simulation, {"rpm": rpm} if is_told else {}))
        rates[name] = rpm / 60
    return lanes, rates


def _blind(stage: Stage, simulation: Mapping[str, object]) -> Outcome:
    rpm = 1800.0
    limit = Limit.steady(rpm / 60)
    lane = Lane("blind", {"limits": {"rpm": rpm}, "latency": _SWIFT, **_SAYS_NOTHING, **simulation})

    def checks(calls: list[Call], _ended: Ended) -> tuple[Check, ...]:
        amounts = ledgers.counted(_accepted(calls))
        return (
            Check("share after 20 s", ledgers.share_of(amounts, limit, skip_s=_LEARNING_S), low=0.9),
            Check("refused", ledgers.refused_share(calls), high=0.02),
        )

    seconds = _LEARNING_S + stage.seconds(60)
    return _one_lane(stage, lane, int(rpm / 60 * seconds), limit, checks)


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
    lane = Lane("blind", {"limits": {"concurrency": cap}, "latency": latency, **_SAYS_NOTHING})
    seconds = _LEARNING_S + stage.seconds(60)
    rows = int(cap / 1.1 * seconds)  # the mean of this log-normal is 1.08 s
    ended = _play(stage, [lane], rows, seconds)
    calls = stage.calls(lane.name)
    rate = cap / (ledgers.mean_latency_s(calls) or 1.0)
    amounts = ledgers.counted(_accepted(calls))
    return Outcome(
        rows,
        ended.ok,
        ledgers.share_of(amounts, Limit.steady(rate)),
        ledgers.refused_share(calls),
        *_windows(ledgers.counted(calls), rate),
        (
            _all_answered(ended.ok, rows),
            Check(
                "share after 20 s", ledgers.share_of(amounts, Limit.steady(rate), skip_s=_LEARNING_S), low=0.9
            ),
            Check("refused", ledgers.refused_share(calls), high=0.02),
        ),
    )


def _halved(
    stage: Stage, simulation: Mapping[str, object], told: Mapping[str, float], *, most_refused: float
) -> Outcome:
    """Full for 25 s, half for 30 s, full again; never shortened below the ten seconds that are allowed."""
    full_s, half_s, last_s = (
        max(12.0, stage.seconds(25)),
        max(15.0, stage.seconds(30)),
        max(15.0, stage.seconds(30)),
    )
    changes = [
        {"at_s": full_s, "limits": {"rpm": _RPM / 2}},
        {"at_s": full_s + half_s, "limits": {"rpm": _RPM}},
    ]
    lane = Lane(
        "halved", {"limits": {"rpm": _RPM}, "latency": _SWIFT, "schedule": changes, **simulation}, told
    )
    rows = int(_RATE * (full_s + half_s / 2 + last_s))
    ended = _play(stage, [lane], rows, full_s + half_s + last_s)
    calls = stage.calls(lane.name)
    start_s = calls[0].at_s if calls else 0.0
    halved_s, restored_s = start_s + full_s, start_s + full_s + half_s
    limit = Limit(((float("-inf"), _RATE), (halved_s, _RATE / 2), (restored_s, _RATE)))
    times = ledgers.accepted_times(calls)
    down_s = ledgers.seconds_until(times, halved_s, _RATE / 2, end_s=restored_s)
    quiet_s = ledgers.seconds_until_quiet(calls, halved_s, restored_s, most_refused=0.05)
    return Outcome(
        rows,
        ended.ok,
        ledgers.share_of(ledgers.counted(_accepted(calls)), limit),
        ledgers.refused_share(calls),
        *_windows(ledgers.counted(calls), _RATE),
        (
            _all_answered(ended.ok, rows),
            Check("down: at 0.9 after, s", down_s, high=10.0),
            Check("down: last refusals after, s", quiet_s, high=10.0),
            Check("up: at 0.9 after, s", ledgers.seconds_until(times, restored_s, _RATE), high=10.0),
            Check("refused", ledgers.refused_share(calls), high=most_refused),
        ),
    )


def halved_restored_told(stage: Stage) -> Outcome:
    """The limit is halved and restored; the run was told the whole one, and headers say what is so."""
    return _halved(stage, {}, {"rpm": _RPM}, most_refused=0.01)


def halved_restored_headers(stage: Stage) -> Outcome:
    """The same, told by headers only."""
    return _halved(stage, {}, {}, most_refused=0.01)


def halved_restored_blind(stage: Stage) -> Outcome:
    """The same, told by bare refusals only; finding the limit at the start costs some too."""
    return _halved(stage, _SAYS_NOTHING, {}, most_refused=0.02)


def two_processes(stage: Stage) -> Outcome:
    """Two runs with one key on one host; then one of them is killed."""
    together_s, alone_s = stage.seconds(30), max(15.0, stage.seconds(30))
    lane = Lane("shared", {"limits": {"rpm": _RPM}, "latency": _SWIFT}, {"rpm": _RPM})
    rows = int(_RATE * (together_s / 2 + alone_s))
    stage.serve([lane])
    for name in ("a", "b"):
        stage.write_job(name, [lane], rows)
    first, other = stage.start("a"), stage.start("b")
    time.sleep(together_s)
    killed_s = first.kill()
    ended = other.wait(alone_s + _PATIENCE_S)
    calls = stage.calls(lane.name)
    limit = Limit.steady(_RATE)
    starts = [
        min((call.at_s for call in calls if call.source == name), default=killed_s) for name in ("a", "b")
    ]
    # Two seconds for the second one to be seen by the first.
    both = [call for call in calls if max(starts) + 2 <= call.at_s < killed_s]
    counts = [sum(call.source == name and call.is_accepted for call in both) for name in ("a", "b")]
    share = ledgers.share_between(ledgers.accepted_times(both), limit, max(starts) + 2, killed_s)
    sent = ledgers.share_between([call.at_s for call in both], limit, max(starts) + 2, killed_s)
    rest = ledgers.accepted_times(call for call in calls if call.source == "b")
    return Outcome(
        rows,
        ended.ok,
        share,
        ledgers.refused_share(calls),
        *_windows(ledgers.counted(calls), _RATE),
        (
            _all_answered(ended.ok, rows),
            Check("together", share, low=0.93),
            Check("together sent", sent, high=1.0),
            Check("fairness", ledgers.fairness(counts), low=0.8),
            Check("rest taken after, s", ledgers.seconds_until(rest, killed_s, _RATE), high=10.0),
        ),
    )


def restart_no_burst(stage: Stage) -> Outcome:
    """Stopped by Ctrl-C and started again, killed and started again: the provider sees one steady client."""
    part_s = stage.seconds(24)
    lane = Lane("told", {"limits": {"rpm": _RPM}, "latency": _SWIFT}, {"rpm": _RPM})
    rows = int(_RATE * 3 * part_s)
    stage.serve([lane])
    stage.write_job("a", [lane], rows)
    run = stage.start("a")
    time.sleep(part_s)
    run.interrupt()
    run.wait(_PATIENCE_S)
    run = stage.start("a")
    time.sleep(part_s)
    run.kill()
    ended = stage.start("a").wait(rows / _RATE + _PATIENCE_S)
    calls = stage.calls(lane.name)
    windows = _windows(ledgers.counted(calls), _RATE)
    return Outcome(
        rows,
        ended.ok,
        ledgers.share_of(ledgers.counted(_accepted(calls)), Limit.steady(_RATE)),
        ledgers.refused_share(calls),
        *windows,
        (
            _all_answered(ended.ok, rows),
            *_window_checks(windows, _RATE),
            Check("refused", ledgers.refused_share(calls), high=0.001),
        ),
    )


def latency_x10(stage: Stage) -> Outcome:
    """Ten times slower for a minute, then as before."""
    before_s, slow_s, after_s = stage.seconds(20), stage.seconds(60), max(15.0, stage.seconds(30))
    slow = {"median_s": 3.0, "p99_s": 10.0}
    changes = [{"at_s": before_s, "latency": slow}, {"at_s": before_s + slow_s, "latency": _SWIFT}]
    limit = Limit.steady(_RATE)
    lane = Lane("told", {"limits": {"rpm": _RPM}, "latency": _SWIFT, "schedule": changes}, {"rpm": _RPM})

    def checks(calls: list[Call], _ended: Ended) -> tuple[Check, ...]:
        start_s = calls[0].at_s if calls else 0.0
        times = ledgers.accepted_times(calls)
        slow_from_s, slow_to_s = start_s + before_s, start_s + before_s + slow_s
        return (
            Check("share while slow", ledgers.share_between(times, limit, slow_from_s, slow_to_s)),
            Check("back at 0.9 after, s", ledgers.seconds_until(times, slow_to_s, _RATE), high=10.0),
            Check("refused", ledgers.refused_share(calls), high=0.001),
        )

    return _one_lane(stage, lane, int(_RATE * (before_s + slow_s + after_s)), limit, checks)


def stalls(stage: Stage) -> Outcome:
    """One call in 500 is never answered; the lane's deadline is 10 s."""
    deadline_s = 10.0
    limit = Limit.steady(_RATE)
    simulation = {"limits": {"rpm": _RPM}, "latency": _SWIFT, "faults": {"stall_rate": 0.002}}
    lane = Lane("told", simulation, {"rpm": _RPM}, deadline_s)

    def checks(calls: list[Call], ended: Ended) -> tuple[Check, ...]:
        first = ledgers.counted(call for call in calls if call.is_accepted and call.attempt == 0)
        return (
            Check("share of first attempts", ledgers.share_of(first, limit), low=0.98),
            Check(
                "last row's end after, s", ended.at_s - first[-1][0] if first else None, high=deadline_s + 8
            ),
            Check("refused", ledgers.refused_share(calls), high=0.001),
        )

    return _one_lane(stage, lane, int(_RATE * stage.seconds(60)), limit, checks)


def spread(stage: Stage) -> Outcome:
    """Three lanes, told, no weights: each at its limit. Then one of them fails, and its rows go to the others."""
    lanes, rates = _three_lanes(is_told=True)
    healthy_s, seconds = stage.seconds(50), stage.seconds(90)
    broken = {"at_s": healthy_s, "faults": {"error_rate": 1.0}, "latency": {"median_s": 0.2, "p99_s": 0.5}}
    steady = lanes[1]
    lanes[1] = Lane(steady.name, {**steady.simulation, "schedule": [broken]}, steady.limits)
    rows = int(sum(rates.values()) * healthy_s + (rates["swift"] + rates["slow"]) * (seconds - healthy_s))
    ended = _play(stage, lanes, rows, seconds)
    seen = {name: stage.calls(name) for name in rates}
    every = sorted((call for calls in seen.values() for call in calls), key=lambda call: call.at_s)
    broken_s = (seen["steady"][0].at_s if seen["steady"] else 0.0) + healthy_s
    end_s = every[-1].at_s if every else 0.0
    limit = Limit(((float("-inf"), sum(rates.values())), (broken_s, rates["swift"] + rates["slow"])))
    kept = [call for name in ("swift", "slow") for call in seen[name]]
    failed = [call for call in seen["steady"] if call.is_accepted and call.status == 500]
    healthy = {name: seen[name] for name in ("swift", "slow")}
    return Outcome(
        rows,
        ended.ok,
        ledgers.share_of(
            ledgers.counted(call for call in every if call.is_accepted and call.status == 200), limit
        ),
        ledgers.refused_share(every),
        *_windows(ledgers.counted(every), sum(rates.values())),
        (
            _all_answered(ended.ok, rows),
            *_lane_checks(healthy, rates, end_s, low=0.95),
            *_lane_checks(
                {"steady": [call for call in seen["steady"] if call.at_s < broken_s]},
                rates,
                broken_s,
                low=0.95,
            ),
            Check("rows given away after, s", ledgers.longest_give_away_s(failed, kept), high=5.0),
            Check("refused", ledgers.refused_share(every), high=0.001),
        ),
    )


SCENARIOS: Mapping[str, Callable[[Stage], Outcome]] = {
    play.__name__: play
    for play in (
        rpm_told,
        rpm_told_strict,
        tpm_told,
        three_lanes_headers,
        blind_retry_after,
        blind_bare,
        blind_strict,
        blind_concurrency,
        halved_restored_told,
        halved_restored_headers,
        halved_restored_blind,
        two_processes,
        restart_no_burst,
        latency_x10,
        stalls,
        spread,
    )
}
