"""The page's drawings as Vega-Lite specs, each with the sentence that says the same in words. Pure.

All marks have one of two colours that those who cannot tell red from green can tell apart, and another shape or
line beside: `--blue` for voters and what is right, `--orange` for the consensus and what is wrong.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from batchllm.report.page.contention import Margins
from batchllm.report.page.differences import Difference
from batchllm.report.page.figures import Figures, Measure
from batchllm.report.page.text import clean, cost, counted, latency, listed, number, percent, span

_WIDTH, _HEIGHT = 400, 250
_LINE = 14
#: Points beyond these have no name beside them; the table of voters names all.
_MOST_NAMES = 12
_NAME_CHARS = 22
_CHAR_WIDTH = 6.6
_FAR = 30

Spec = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Chart:
    """`keys`: (class of the swatch, what it stands for); the legend is HTML and no part of the drawing."""

    name: str
    title: str
    words: str
    spec: Spec
    keys: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class _Point:
    name: str
    x: float
    x_end: float | None
    value: float
    low: float | None
    high: float | None
    is_consensus: bool
    place: str


@dataclass(frozen=True, slots=True)
class _Across:
    """The axis along the bottom: by orders of magnitude where the points are far apart."""

    low: float
    high: float
    is_log: bool

    @classmethod
    def of(cls, points: Sequence[_Point]) -> "_Across":
        least, most = min(p.x for p in points), max(max(p.x, p.x_end or 0.0) for p in points)
        if least > 0 and most / least > _FAR:
            return cls(least / 1.6, most * 1.6, True)
        return cls(0.0, most * 1.08 or 1.0, False)

    def place(self, x: float) -> float:
        """From 0 to 1."""
        if self.is_log:
            return math.log(x / self.low) / math.log(self.high / self.low)
        return (x - self.low) / (self.high - self.low)


def accuracy_by_cost(figures: Figures) -> Chart | None:
    """Voters and the consensus: dollars for 1,000 votes (or decided rows) × score. None for fewer than two voters."""
    found = [
        _point(
            voter.name,
            voter.score.main,
            1_000 * voter.cost_usd / voter.votes,
            cost(1_000 * voter.cost_usd / voter.votes),
        )
        for voter in figures.voters
        if voter.cost_usd is not None
        and voter.votes
        and voter.score.main.value is not None
        and not voter.has_chosen_rows
    ]
    if figures.score.main.value is not None and figures.per_decided_usd is not None:
        usd = 1_000 * figures.per_decided_usd
        found.append(_point("consensus", figures.score.main, usd, cost(usd), is_consensus=True))
    axis = "dollars per 1,000 votes (consensus: decided rows)"
    return _scatter("cost", "cost", axis, "$,.2~r", found, figures)


def accuracy_by_latency(figures: Figures) -> Chart | None:
    """Median latency × accuracy, with a line to the 95th percentile."""
    slowest = max((v.p95_ms or v.p50_ms or 0.0 for v in figures.voters), default=0.0)
    unit, factor = ("s", 1_000.0) if slowest >= 2_000 else ("ms", 1.0)
    found = [
        _point(
            v.name,
            v.score.main,
            v.p50_ms / factor,
            latency(v.p50_ms),
            None if v.p95_ms is None else v.p95_ms / factor,
        )
        for v in figures.voters
        if v.p50_ms is not None and v.score.main.value is not None and not v.has_chosen_rows
    ]
    axis = f"latency in {unit}: median, dots to the 95th percentile"
    return _scatter("latency", "latency", axis, ",~r", found, figures)


def margins(found: Margins, has_gold: bool) -> Chart | None:
    """How many rows the votes were how clear on, and how many of those are wrong."""
    counts = found.counts.tolist()
    if not sum(map(sum, counts)):
        return None
    kinds = [
        ("right", "var(--blue)"),
        ("wrong", "var(--orange)"),
        ("decided", "var(--blue-soft)"),
        ("open", "var(--grey)"),
    ]
    values = [
        {"bin": _bin(place), "place": place, "rows": line[at], "kind": name, "order": at}
        for place, line in enumerate(counts)
        for at, (name, _) in enumerate(kinds)
        if line[at]
    ]
    spec = _spec(
        mark={"type": "bar", "stroke": "var(--paper)", "strokeWidth": 1},
        data={"values": values},
        encoding={
            "x": {"field": "bin", "type": "ordinal", "sort": [_bin(place) for place in range(len(counts))],
                  "scale": {"domain": [_bin(place) for place in range(len(counts))]},
                  "axis": {"title": "margin: share of the first value minus that of the second", "labelAngle": 0}},
            "y": {"field": "rows", "type": "quantitative", "axis": {"title": "rows", "format": ",~r", "tickCount": 5}},
            "color": {"field": "kind", "type": "nominal", "legend": None,
                      "scale": {"domain": [n for n, _ in kinds], "range": [c for _, c in kinds]}},
            "order": {"field": "order", "type": "quantitative"},
        },
    )  # fmt: skip
    totals = [sum(line[at] for line in counts) for at in range(len(kinds))]
    clear = sum(counts[-1])
    words = f"On {counted(clear, 'row')} of {sum(totals):,} all votes are alike (margin 1)."
    if has_gold and clear:
        words += f" Of these {counts[-1][1]:,} are wrong."
    names = {"right": "decided, right", "wrong": "decided, wrong",
             "decided": "decided, gold not known" if has_gold else "decided", "open": "not decided"}  # fmt: skip
    keys = tuple(
        (f"key-{name}", names[name]) for (name, _), total in zip(kinds, totals, strict=True) if total
    )
    return Chart("margins", "How clear the votes are", words, spec, keys)


def bland_altman(found: Difference, place: int, reference: str) -> Chart:
    """Vote minus reference over their mean, with the mean difference and the limits of agreement (1.96 s)."""
    low, high = found.mean - 1.96 * found.deviation, found.mean + 1.96 * found.deviation
    name = clean(found.voter, 80)
    points = [{"mean": mean, "gap": gap} for mean, gap in found.points]
    x = {"field": "mean", "type": "quantitative", "scale": {"zero": False, "nice": True},
         "axis": {"title": f"mean of vote and {reference}"}}  # fmt: skip
    y = {"field": "gap", "type": "quantitative", "axis": {"title": f"vote minus {reference}"}}
    lines = [{"gap": found.mean, "kind": 0}, {"gap": low, "kind": 1}, {"gap": high, "kind": 1}]
    rule = {"y": y, "strokeDash": {"field": "kind", "type": "ordinal", "legend": None,
                                   "scale": {"domain": [0, 1], "range": [[1, 0], [5, 4]]}}}  # fmt: skip
    spec = _spec(
        layer=[
            {"data": {"values": points},
             "mark": {"type": "circle", "size": 26, "opacity": 0.55, "color": "var(--blue)"},
             "encoding": {"x": x, "y": y}},
            {"data": {"values": lines}, "mark": {"type": "rule", "color": "var(--orange)", "strokeWidth": 1.6},
             "encoding": rule},
        ],
        height=190,
    )  # fmt: skip
    words = (
        f"{name} differs from the {reference} by {number(found.mean)} on average; of 100 votes 95 differ by"
        f" {span(number(low), number(high))} ({counted(found.n, 'vote')})."
    )
    return Chart(f"difference-{place}", name, words, spec)


def _point(
    name: str, score: Measure, x: float, place: str, x_end: float | None = None, *, is_consensus: bool = False
) -> _Point:
    return _Point(name, x, x_end, score.value or 0.0, score.low, score.high, is_consensus, place)


def _words(point: _Point, form: Callable[[float], str]) -> str:
    said = f"{'the consensus' if point.is_consensus else point.name} {form(point.value)}"
    if point.low is not None and point.high is not None:
        said += f" ({span(form(point.low), form(point.high))})"
    return f"{said} at {point.place}"


def _scatter(
    name: str, against: str, axis: str, form: str, points: Sequence[_Point], figures: Figures
) -> Chart | None:
    """Of voters that were asked about every row: on the open ones alone nobody looks as good as on all."""
    is_error = figures.is_number
    if sum(not point.is_consensus for point in points) < 2:
        return None
    ends = [end for p in points for end in (p.low, p.high, p.value) if end is not None]
    room = (max(ends) - min(ends)) * 0.06 or 0.02
    domain = max(0.0, min(ends) - room), max(ends) + room if is_error else min(1.0, max(ends) + room)
    across = _Across.of(points)
    x = {"field": "x", "type": "quantitative",
         "scale": {"type": "log" if across.is_log else "linear", "domain": [across.low, across.high], "nice": False},
         "axis": {"title": axis, "format": form, "tickCount": 5}}  # fmt: skip
    y = {"field": "y", "type": "quantitative", "scale": {"domain": list(domain), "nice": False, "zero": False},
         "axis": {"title": "mean error: less is better" if is_error else "accuracy",
                  "format": ",~g" if is_error else ".0%", "tickCount": 5}}  # fmt: skip
    spec = _spec(
        data={"values": [_values(point) for point in points]},
        layer=[*_marks(x, y), *_names(points, x, y, domain, across)],
    )
    has_consensus = any(p.is_consensus for p in points)
    keys = (
        ("key-voter", "voter, with its 95 % interval"),
        *((("key-consensus", "consensus"),) if has_consensus else ()),
    )
    title = f"{'Error' if is_error else 'Accuracy'} against {against}"
    words = "; ".join(_words(point, number if is_error else percent) for point in points)
    apart = [voter.name for voter in figures.voters if voter.has_chosen_rows]
    if apart:
        words += f". Not shown: {listed(apart)}, asked about open rows only"
    return Chart(name, title, f"{words}.", spec, keys)


def _values(point: _Point) -> Spec:
    return {
        "x": point.x,
        "x_end": point.x if point.x_end is None else point.x_end,
        "y": point.value,
        "low": point.value if point.low is None else point.low,
        "high": point.value if point.high is None else point.high,
        "kind": "consensus" if point.is_consensus else "voter",
    }


def _marks(x: Spec, y: Spec) -> list[Spec]:
    """A line for the interval, one to the right where the point has an end there, and the point."""
    kinds = {"field": "kind", "type": "nominal", "legend": None}
    color = {**kinds, "scale": {"domain": ["voter", "consensus"], "range": ["var(--blue)", "var(--orange)"]}}
    shape = {**kinds, "scale": {"domain": ["voter", "consensus"], "range": ["circle", "diamond"]}}
    upright = {"x": x, "y": {**y, "field": "low"}, "y2": {"field": "high"}, "color": color}
    sideways = {"x": x, "x2": {"field": "x_end"}, "y": y, "color": color}
    return [
        {"mark": {"type": "rule", "strokeWidth": 1.6, "opacity": 0.75}, "encoding": upright},
        {"mark": {"type": "rule", "strokeWidth": 1.6, "strokeDash": [2, 3]}, "encoding": sideways},
        {
            "mark": {"type": "point", "filled": True, "size": 90, "opacity": 1},
            "encoding": {"x": x, "y": y, "color": color, "shape": shape},
        },
    ]


def _names(
    points: Sequence[_Point], x: Spec, y: Spec, ends: tuple[float, float], across: _Across
) -> list[Spec]:
    """Names beside the points, moved apart where they would lie on one another, and above a line to the right."""
    sides: Mapping[bool, list[Spec]] = {False: [], True: []}
    taken: list[tuple[float, float, float]] = []
    for point in _named(points):
        name = clean(point.name, _NAME_CHARS)
        left, wide = across.place(point.x) * _WIDTH, len(name) * _CHAR_WIDTH + 12
        is_left = left + wide > _WIDTH
        start = left - wide if is_left else left
        at = (ends[1] - point.value) / (ends[1] - ends[0]) * _HEIGHT - (0 if point.x_end is None else 9)
        while any(
            abs(at - other) < _LINE and start < end and begin < start + wide for begin, end, other in taken
        ):
            at += _LINE / 2
        taken.append((start, start + wide, at))
        sides[is_left].append({"x": point.x, "y": ends[1] - at / _HEIGHT * (ends[1] - ends[0]), "name": name})
    return [
        {"data": {"values": values},
         "mark": {"type": "text", "align": "right" if is_left else "left", "dx": -9 if is_left else 9,
                  "baseline": "middle", "color": "var(--ink)", "fontSize": 12},
         "encoding": {"x": x, "y": y, "text": {"field": "name", "type": "nominal"}}}
        for is_left, values in sides.items()
        if values
    ]  # fmt: skip


def _named(points: Sequence[_Point]) -> list[_Point]:
    """All of a few; of many the consensus, the first and the last by score, and the one furthest to the left."""
    ordered = sorted(points, key=lambda point: (not point.is_consensus, -point.value))
    if len(ordered) <= _MOST_NAMES:
        return ordered
    return list(dict.fromkeys([ordered[0], ordered[1], min(points, key=lambda point: point.x), ordered[-1]]))


def _bin(place: int) -> str:
    return "1" if place == 10 else f"0.{place}"


def _spec(*, height: int = _HEIGHT, **parts: Any) -> Spec:
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "width": _WIDTH,
        "height": height,
        "background": None,
        "config": {
            "aria": False,
            "view": {"stroke": None},
            "axis": {
                "domainColor": "var(--rule)", "tickColor": "var(--rule)", "gridColor": "var(--hair)",
                "labelColor": "var(--muted)", "titleColor": "var(--muted)", "labelFontSize": 12, "titleFontSize": 12,
                "titleFontWeight": "normal", "titlePadding": 10, "labelPadding": 5, "ticks": False, "domain": False,
            },
            "axisX": {"grid": False, "domain": True},
        },
        **parts,
    }  # fmt: skip
