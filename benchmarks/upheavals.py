"""Scenarios in which something happens: to the limit, to the latency, to a lane, to the run itself."""

import time
from collections.abc import Mapping

from benchmarks import ledgers
from benchmarks.acts import PATIENCE_S, RATE, RPM, SAYS_NOTHING, SWIFT, accepted, one_lane, play, three_lanes
from benchmarks.ledgers import Call, Limit
from benchmarks.outcomes import Check, Outcome, all_answered, lane_checks, window_checks, windows
from benchmarks.stage import Ended, Lane, Stage


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
        {"at_s": full_s, "limits": {"rpm": RPM / 2}},
        {"at_s": full_s + half_s, "limits": {"rpm": RPM}},
    ]
    lane = Lane("halved", {"limits": {"rpm": RPM}, "latency": SWIFT, "schedule": changes, **simulation}, told)
    rows = int(RATE * (full_s + half_s / 2 + last_s))
    ended = play(stage, [lane], rows, full_s + half_s + last_s)
    calls = stage.calls(lane.name)
    start_s = calls[0].at_s if calls else 0.0
    halved_s, restored_s = start_s + full_s, start_s + full_s + half_s
    limit = Limit(((float("-inf"), RATE), (halved_s, RATE / 2), (restored_s, RATE)))
    times = ledgers.accepted_times(calls)
    down_s = ledgers.seconds_until(times, halved_s, RATE / 2, end_s=restored_s)
    quiet_s = ledgers.seconds_until_quiet(calls, halved_s, restored_s, most_refused=0.05)
    return Outcome(
        rows,
        ended.ok,
        ledgers.share_of(ledgers.counted(accepted(calls)), limit),
        ledgers.refused_share(calls),
        *windows(ledgers.counted(calls), RATE),
        (
            all_answered(ended.ok, rows),
            Check("down: at 0.9 after, s", down_s, high=10.0),
            Check("down: last refusals after, s", quiet_s, high=10.0),
            Check("up: at 0.9 after, s", ledgers.seconds_until(times, restored_s, RATE), high=10.0),
            Check("refused", ledgers.refused_share(calls), high=most_refused),
        ),
    )


def halved_restored_told(stage: Stage) -> Outcome:
    """The limit is halved and restored; the run was told the whole one, and headers say what is so."""
    return _halved(stage, {}, {"rpm": RPM}, most_refused=0.01)


def halved_restored_headers(stage: Stage) -> Outcome:
    """The same, told by headers only."""
    return _halved(stage, {}, {}, most_refused=0.01)


def halved_restored_blind(stage: Stage) -> Outcome:
    """The same, told by bare refusals only; finding the limit at the start costs some too."""
    return _halved(stage, SAYS_NOTHING, {}, most_refused=0.01)


def halved_restored_strict(stage: Stage) -> Outcome:
    """The same, enforced to the request in any second, refused requests counted."""
    strict = {**SAYS_NOTHING, "enforcement": "second", "counts_refused": True}
    return _halved(stage, strict, {}, most_refused=0.01)


def two_processes(stage: Stage) -> Outcome:
    """Two runs with one key on one host; then one of them is killed."""
    together_s, alone_s = stage.seconds(30), max(15.0, stage.seconds(30))
    lane = Lane("shared", {"limits": {"rpm": RPM}, "latency": SWIFT}, {"rpm": RPM})
    rows = int(RATE * (together_s / 2 + alone_s))
    stage.serve([lane])
    for name in ("a", "b"):
        stage.write_job(name, [lane], rows)
    first, other = stage.start("a"), stage.start("b")
    time.sleep(together_s)
    killed_s = first.kill()
    ended = other.wait(alone_s + PATIENCE_S)
    calls = stage.calls(lane.name)
    limit = Limit.steady(RATE)
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
        *windows(ledgers.counted(calls), RATE),
        (
            all_answered(ended.ok, rows),
            Check("together", share, low=0.93),
            # A span cuts off up to one call at its ends.
            Check("together sent", sent, high=1 + 1 / (RATE * together_s)),
            Check("fairness", ledgers.fairness(counts), low=0.8),
            Check("rest taken after, s", ledgers.seconds_until(rest, killed_s, RATE), high=10.0),
        ),
    )


def restart_no_burst(stage: Stage) -> Outcome:
    """Told to stop and started again, killed and started again: the provider sees one steady client."""
    part_s = stage.seconds(24)
    lane = Lane("told", {"limits": {"rpm": RPM}, "latency": SWIFT}, {"rpm": RPM})
    rows = int(RATE * 3 * part_s)
    stage.serve([lane])
    stage.write_job("a", [lane], rows)
    run = stage.start("a")
    time.sleep(part_s)
    run.stop()
    run.wait(PATIENCE_S)
    run = stage.start("a")
    time.sleep(part_s)
    run.kill()
    ended = stage.start("a").wait(rows / RATE + PATIENCE_S)
    calls = stage.calls(lane.name)
    seen = windows(ledgers.counted(calls), RATE)
    return Outcome(
        rows,
        ended.ok,
        ledgers.share_of(ledgers.counted(accepted(calls)), Limit.steady(RATE)),
        ledgers.refused_share(calls),
        *seen,
        (
            all_answered(ended.ok, rows),
            *window_checks(seen, RATE),
            Check("refused", ledgers.refused_share(calls), high=0.001),
        ),
    )


def latency_x10(stage: Stage) -> Outcome:
    """Ten times slower for a minute, then as before."""
    before_s, slow_s, after_s = stage.seconds(20), stage.seconds(60), max(15.0, stage.seconds(30))
    slow = {"median_s": 3.0, "p99_s": 10.0}
    changes = [{"at_s": before_s, "latency": slow}, {"at_s": before_s + slow_s, "latency": SWIFT}]
    limit = Limit.steady(RATE)
    lane = Lane("told", {"limits": {"rpm": RPM}, "latency": SWIFT, "schedule": changes}, {"rpm": RPM})

    def checks(calls: list[Call], _ended: Ended) -> tuple[Check, ...]:
        start_s = calls[0].at_s if calls else 0.0
        times = ledgers.accepted_times(calls)
        slow_from_s, slow_to_s = start_s + before_s, start_s + before_s + slow_s
        return (
            Check("share while slow", ledgers.share_between(times, limit, slow_from_s, slow_to_s)),
            Check("back at 0.9 after, s", ledgers.seconds_until(times, slow_to_s, RATE), high=10.0),
            Check("refused", ledgers.refused_share(calls), high=0.001),
        )

    return one_lane(stage, lane, int(RATE * (before_s + slow_s + after_s)), limit, checks)


def stalls(stage: Stage) -> Outcome:
    """One call in 500 is never answered; the lane's deadline is 10 s."""
    deadline_s = 10.0
    limit = Limit.steady(RATE)
    simulation = {"limits": {"rpm": RPM}, "latency": SWIFT, "faults": {"stall_rate": 0.002}}
    lane = Lane("told", simulation, {"rpm": RPM}, deadline_s)

    def checks(calls: list[Call], ended: Ended) -> tuple[Check, ...]:
        first = ledgers.counted(call for call in calls if call.is_accepted and call.attempt == 0)
        return (
            Check("share of first attempts", ledgers.share_of(first, limit), low=0.98),
            Check(
                "last row's end after, s", ended.at_s - first[-1][0] if first else None, high=deadline_s + 8
            ),
            Check("refused", ledgers.refused_share(calls), high=0.001),
        )

    return one_lane(stage, lane, int(RATE * stage.seconds(60)), limit, checks)


def spread(stage: Stage) -> Outcome:
    """Three lanes, told, no weights: each at its limit. Then one of them fails, and its rows go to the others."""
    lanes, rates = three_lanes(is_told=True)
    healthy_s, seconds = stage.seconds(50), stage.seconds(90)
    broken = {"at_s": healthy_s, "faults": {"error_rate": 1.0}, "latency": {"median_s": 0.2, "p99_s": 0.5}}
    steady = lanes[1]
    lanes[1] = Lane(steady.name, {**steady.simulation, "schedule": [broken]}, steady.limits)
    rows = int(sum(rates.values()) * healthy_s + (rates["swift"] + rates["slow"]) * (seconds - healthy_s))
    ended = play(stage, lanes, rows, seconds)
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
        *windows(ledgers.counted(every), sum(rates.values())),
        (
            all_answered(ended.ok, rows),
            *lane_checks(healthy, rates, end_s, low=0.95),
            *lane_checks(
                {"steady": [call for call in seen["steady"] if call.at_s < broken_s]},
                rates,
                broken_s,
                low=0.95,
            ),
            Check("rows given away after, s", ledgers.longest_give_away_s(failed, kept), high=5.0),
            Check("refused", ledgers.refused_share(every), high=0.001),
        ),
    )
