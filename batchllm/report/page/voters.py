"""Voters side by side: a table, and for each two of them whether one is right more often, in words."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from batchllm.report.page.figures import Comparison, Figures, Measure, Voter
from batchllm.report.page.text import (
    cost,
    count,
    counted,
    decimal,
    latency,
    number,
    p_value,
    percent,
    points,
    signed,
    span,
)

#: More comparisons are left to agreement.json: those of the least p-value are shown.
MOST_COMPARISONS = 24
_LEVEL = 0.05


@dataclass(frozen=True, slots=True)
class VoterLine:
    """`score`, and `more` of it, under the columns of the table; `bar`: low, value, high in percent of its axis."""

    name: str
    notes: tuple[str, ...]
    votes: str
    missing: str
    score: str
    interval: str
    bar: tuple[float, float, float] | None
    more: tuple[str, ...]
    cost: str
    per_thousand: str
    latency: str
    slowest: str
    weight: str
    is_best: bool


@dataclass(frozen=True, slots=True)
class VoterTable:
    """`columns`: of score and more of it, empty when there is none; `axis`: from where to where the intervals go."""

    lines: tuple[VoterLine, ...]
    against: str
    is_number: bool
    columns: tuple[str, ...]
    axis: str
    has_cost: bool
    has_latency: bool
    has_weight: bool


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
    voters, is_number = figures.voters, figures.is_number
    known = [v.score.main.value for v in voters if v.score.main.value is not None]
    rivals = [v.score.main.value for v in voters if v.score.main.value is not None and _is_rival(v)]
    ends = [
        end
        for v in voters
        for end in (v.score.main.low, v.score.main.value, v.score.main.high)
        if end is not None
    ]
    axis = (0.0, max(ends, default=0.0) or 1.0) if is_number else _share_axis(ends)
    best = (min if is_number else max)(rivals, default=None) if len(rivals) > 1 else None
    shown = [number(end) if is_number else percent(end) for end in axis]
    columns = ("Mean error", "Bias", "Correlation") if is_number else ("Accuracy", "Macro F1")
    return VoterTable(
        tuple(_line(voter, axis, is_number, best) for voter in voters),
        next((voter.against for voter in voters if voter.against), "consensus"),
        is_number,
        columns if known else (),
        f"from {shown[0]} to {shown[1]}",
        any(voter.cost_usd is not None for voter in voters),
        any(voter.p50_ms is not None for voter in voters),
        any(voter.weight is not None for voter in voters),
    )


def verdicts(figures: Figures) -> tuple[list[Verdict], int]:
    """Comparisons in words, and how many are left out."""
    shown = list(figures.comparisons)
    if len(shown) > MOST_COMPARISONS:
        shown = sorted(shown, key=lambda found: 1.0 if found.p_value is None else found.p_value)
    shown = [_upright(found) for found in shown[:MOST_COMPARISONS]]
    reach = max(
        [
            abs(end)
            for found in shown
            for end in (found.difference.low, found.difference.high)
            if end is not None
        ],
        default=0.0,
    )
    return [_verdict(found, reach) for found in shown], len(figures.comparisons) - len(shown)


def _line(voter: Voter, axis: tuple[float, float], is_number: bool, best: float | None) -> VoterLine:
    main, score = voter.score.main, voter.score
    form = number if is_number else percent
    interval, bar = "", None
    if main.value is not None and main.low is not None and main.high is not None:
        interval = span(form(main.low), form(main.high))
        bar = (_place(main.low, axis), _place(main.value, axis), _place(main.high, axis))
    more = (
        (_text(score.bias, number), _text(score.correlation, decimal))
        if is_number
        else (_text(score.macro_f1, percent),)
    )
    lane = [voter.lane] if voter.lane not in ("", voter.name) else []
    per_vote = voter.cost_usd / voter.votes if voter.cost_usd is not None and voter.votes else None
    return VoterLine(
        voter.name,
        (*lane, *([_asked(voter)] if voter.has_chosen_rows else [])),
        count(voter.votes),
        count(voter.missing),
        _text(main, form),
        interval,
        bar,
        more,
        "–" if voter.cost_usd is None else cost(voter.cost_usd),
        "–" if per_vote is None else cost(per_vote * 1_000),
        "–" if voter.p50_ms is None else latency(voter.p50_ms),
        "–" if voter.p95_ms is None else latency(voter.p95_ms),
        "–" if voter.weight is None else decimal(voter.weight),
        best is not None and main.value == best and _is_rival(voter),
    )


def _is_rival(voter: Voter) -> bool:
    """Best is said of those that gold has judged, on all rows."""
    return voter.against == "gold" and not voter.has_chosen_rows


def _asked(voter: Voter) -> str:
    asked = voter.votes + voter.missing
    return f"open rows only: {asked:,} of {asked + voter.not_asked:,}"


def _text(measure: Measure, form: Callable[[float], str]) -> str:
    return "–" if measure.value is None else form(measure.value)


def _share_axis(ends: list[float]) -> tuple[float, float]:
    """From the tenth below the least of them; there is an axis also where all are always right."""
    return min(0.9, int(max(0.0, min(ends, default=0.0)) * 10) / 10), 1.0


def _place(value: float, axis: tuple[float, float]) -> float:
    return round(max(0.0, min(100.0, 100 * (value - axis[0]) / (axis[1] - axis[0]))), 3)


def _upright(found: Comparison) -> Comparison:
    """With the better one as `a`, the one with more accuracy or less error: sentences read better than signs."""
    gap = found.difference
    if gap.value is None or (gap.value <= 0 if found.is_error else gap.value >= 0):
        return found
    turned = Measure(-gap.value, _minus(gap.high), _minus(gap.low), gap.n, gap.why)
    return replace(found, a=found.b, b=found.a, only_a=found.only_b, only_b=found.only_a, difference=turned)


def _minus(value: float | None) -> float | None:
    return None if value is None else -value


def _verdict(found: Comparison, reach: float) -> Verdict:
    gap, form = found.difference, signed if found.is_error else points
    is_clear = found.p_value is not None and found.p_value < _LEVEL
    interval, bar = "", None
    if gap.value is not None and gap.low is not None and gap.high is not None:
        interval = f"{form(gap.low)} to {form(gap.high)}"
        ends = [
            round(50 + 48 * value / reach, 3) if reach else 50.0 for value in (gap.low, gap.value, gap.high)
        ]
        bar = (ends[0], ends[1], ends[2], 50.0)
    return Verdict(
        found.a,
        found.b,
        _answer(found, is_clear),
        is_clear,
        "–" if gap.value is None else form(gap.value),
        interval,
        "p unknown" if found.p_value is None else p_value(found.p_value),
        _detail(found),
        bar,
    )


def _detail(found: Comparison) -> str:
    both = f"of {counted(found.n, 'row')} that both voted on,"
    if found.is_error:
        return f"{both} {found.a} is nearer to gold on {found.only_a:,}, {found.b} on {found.only_b:,}"
    return f"{both} only {found.a} is right on {found.only_a:,}, only {found.b} on {found.only_b:,}"


def _answer(found: Comparison, is_clear: bool) -> str:
    if found.p_value is None:
        return found.difference.why or "cannot be told"
    if found.only_a == found.only_b:
        return "no difference"
    return "better" if is_clear else "perhaps better, perhaps chance"
