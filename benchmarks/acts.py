"""What scenarios have in common: the providers that they play against, and one run against them."""

from collections.abc import Callable, Mapping, Sequence

from benchmarks import ledgers
from benchmarks.ledgers import Call, Limit
from benchmarks.outcomes import Check, Outcome, all_answered, windows
from benchmarks.stage import Ended, Lane, Stage

#: A steady provider of 3,000 requests a minute that answers in about 0.3 s.
RPM = 3000.0
RATE = RPM / 60
SWIFT: Mapping[str, object] = {"median_s": 0.3, "p99_s": 1.0}
SAYS_NOTHING: Mapping[str, object] = {"headers": "none", "retry_after": "none"}
#: A run may take this much longer than its rows need at the full rate, then it is stopped.
PATIENCE_S = 60.0


def three_lanes(*, is_told: bool) -> tuple[list[Lane], dict[str, float]]:
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


def play(stage: Stage, lanes: Sequence[Lane], rows: int, ideal_s: float) -> Ended:
    """One run of one job over all lanes."""
    stage.serve(lanes)
    stage.write_job("a", lanes, rows)
    return stage.start("a").wait(ideal_s + PATIENCE_S)


def one_lane(
    stage: Stage,
    lane: Lane,
    rows: int,
    limit: Limit,
    checks: Callable[[list[Call], Ended], tuple[Check, ...]],
) -> Outcome:
    ended = play(stage, [lane], rows, rows / limit.highest)
    calls = stage.calls(lane.name)
    seen = windows(ledgers.counted(calls), limit.highest)
    return Outcome(
        rows,
        ended.ok,
        ledgers.share_of(ledgers.counted(accepted(calls)), limit),
        ledgers.refused_share(calls),
        *seen,
        (all_answered(ended.ok, rows), *checks(calls, ended)),
    )


def accepted(calls: Sequence[Call]) -> list[Call]:
    return [call for call in calls if call.is_accepted]
