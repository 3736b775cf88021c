"""Voters side by side: a table, and for each two of them whether one is right more often, in words."""

from dataclasses import dataclass

from batchllm.report.page.figures import Comparison, Figures, Measure, Voter
from batchllm.report.page.text import cost, count, counted, decimal, latency, p_value, percent, points, span

#: More comparisons are left to agreement.json: those of the least p-value are shown.
MOST_COMPARISONS = 24
_LEVEL = 0.05


@dataclass(frozen=True, slots=True)
class VoterLine:
    """`bar`: low, value, high of accuracy in percent of the axis of all voters."""

    name: str
    lane: str
    votes: str
    missing: str
    accuracy: str
    interval: str
    bar: tuple[float, float, float] | None
    macro_f1: str
    cost: str
    per_thousand: str
    latency: str
    slowest: str
    weight: str
    is_best: bool


@dataclass(frozen=True, slots=True)
class VoterTable:
    lines: tuple[VoterLine, ...]
    against: str
    has_cost: bool
    has_latency: bool
    has_weight: bool
    has_accuracy: bool
    least: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """`answer`: whether a is better than b, in words; `bar`: low, value, high, and where zero lies, in percent."""

    a: str
    b: str
    answer: str
    is_clear: bool
    difference: str
    interval: str
    p_value: str
    detail: str
    bar: tuple[float, float, float, float] | None


def voter_table(figures: Figures) -> VoterTable:
    known = [v.accuracy.value for v in figures.voters if v.accuracy.value is not None]
    lows = [value for v in figures.voters for value in (v.accuracy.low, v.accuracy.value) if value is not None]
    least = int(max(0.0, min(lows, default=0.0)) * 10) / 10
    best = max(known, default=None)
    return VoterTable(
        tuple(_line(voter, least, best is not None and voter.accuracy.value == best) for voter in figures.voters),
        next((voter.against for voter in figures.voters if voter.against), "consensus"),
        any(voter.cost_usd is not None for voter in figures.voters),
        any(voter.p50_ms is not None for voter in figures.voters),
        any(voter.weight is not None for voter in figures.voters),
        bool(known),
        percent(least),
    )


def verdicts(figures: Figures) -> tuple[list[Verdict], int]:
    """Comparisons in words, and how many are left out."""
    shown = list(figures.comparisons)
    if len(shown) > MOST_COMPARISONS:
        shown = sorted(shown, key=lambda found: 1.0 if found.p_value is None else found.p_value)
    shown = [_upright(found) for found in shown[:MOST_COMPARISONS]]
    reach = max(
        [abs(end) for found in shown for end in (found.difference.low, found.difference.high) if end is not None],
        default=0.0,
    )
    return [_verdict(found, reach) for found in shown], len(figures.comparisons) - len(shown)


def _line(voter: Voter, least: float, is_best: bool) -> VoterLine:
    accuracy = voter.accuracy
    interval, bar = "", None
    if accuracy.value is not None and accuracy.low is not None and accuracy.high is not None:
        interval = span(percent(accuracy.low), percent(accuracy.high))
        bar = tuple(
            round(100 * (value - least) / (1 - least), 3) for value in (accuracy.low, accuracy.value, accuracy.high)
        )
    per_vote = voter.cost_usd / voter.votes if voter.cost_usd is not None and voter.votes else None
    return VoterLine(
        voter.name,
        voter.lane if voter.lane != voter.name else "",
        count(voter.votes),
        count(voter.missing),
        _or_dash(accuracy),
        interval,
        bar,
        _or_dash(voter.macro_f1),
        "–" if voter.cost_usd is None else cost(voter.cost_usd),
        "–" if per_vote is None else cost(per_vote * 1_000),
        "–" if voter.p50_ms is None else latency(voter.p50_ms),
        "–" if voter.p95_ms is None else latency(voter.p95_ms),
        "–" if voter.weight is None else decimal(voter.weight),
        is_best,
    )


def _or_dash(measure: Measure) -> str:
    return "–" if measure.value is None else percent(measure.value)


def _upright(found: Comparison) -> Comparison:
    """With the one that is right more often as `a`: sentences read better than signs."""
    gap = found.difference
    if gap.value is None or gap.value >= 0:
        return found
    turned = Measure(-gap.value, _minus(gap.high), _minus(gap.low), gap.n, gap.why)
    return Comparison(found.b, found.a, found.n, found.only_b, found.only_a, found.p_value, turned)


def _minus(value: float | None) -> float | None:
    return None if value is None else -value


def _verdict(found: Comparison, reach: float) -> Verdict:
    gap = found.difference
    is_clear = found.p_value is not None and found.p_value < _LEVEL
    interval, bar = "", None
    if gap.value is not None and gap.low is not None and gap.high is not None:
        interval = f"{points(gap.low)} to {points(gap.high)}"
        ends = [round(50 + 48 * value / reach, 3) if reach else 50.0 for value in (gap.low, gap.value, gap.high)]
        bar = (ends[0], ends[1], ends[2], 50.0)
    return Verdict(
        found.a,
        found.b,
        _answer(found, is_clear),
        is_clear,
        "–" if gap.value is None else points(gap.value),
        interval,
        "p unknown" if found.p_value is None else p_value(found.p_value),
        f"of {counted(found.n, 'row')} that both voted on, only {found.a} is right on {found.only_a:,},"
        f" only {found.b} on {found.only_b:,}",
        bar,
    )


def _answer(found: Comparison, is_clear: bool) -> str:
    if found.p_value is None:
        return found.difference.why or "cannot be told"
    if found.only_a == found.only_b:
        return "equally often right"
    return "better" if is_clear else "perhaps better, perhaps chance"
