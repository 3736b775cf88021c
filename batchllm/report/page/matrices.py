"""Tables with coloured cells: how often two voters agree, and what was taken for what. Values in, cells out.

They are HTML tables and no drawings: each number can be read, copied, and reached by a screen reader, and a colour
only repeats it. A cell's `step` (0 to 8) is its shade, for mistakes twice as steep; `tone` says which colour: `pair`,
`right`, `wrong`, `plain`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from batchllm.report.page.figures import Confusion, Figures, Measure, Pair, Voter, confusion
from batchllm.report.page.text import count, counted, decimal, listed, percent, span

ByPair: TypeAlias = Mapping[frozenset[str], Pair]
Said: TypeAlias = Callable[[Measure], tuple[str, str]]

STEPS = 8
#: More voters or labels than these make a table that nobody reads: the rest is left out, or folded into one line.
MOST_VOTERS = 30
MOST_LABELS = 20
#: From here on cells are small.
DENSE = 9
_OPEN_ONLY = "It was asked about rows that others had left open, and of those alone is this."
#: Of all confusion matrices together.
MOST_CELLS = 4_000


@dataclass(frozen=True, slots=True)
class Cell:
    text: str
    step: int = 0
    tone: str = "plain"
    says: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    name: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class Grid:
    """`columns`: the names of the columns; `legend`: shade → what it stands for, from least to most."""

    title: str
    columns: tuple[str, ...]
    lines: tuple[Line, ...]
    words: tuple[str, ...] = ()
    note: str = ""
    low: str = ""
    high: str = ""
    totals: bool = False

    @property
    def is_dense(self) -> bool:
        return len(self.columns) > DENSE

    @property
    def has_long_names(self) -> bool:
        return len(self.columns) > 6 or any(len(name) > 12 for name in self.columns)


def agreement(figures: Figures) -> tuple[Grid, Grid | None] | None:
    """Voters × voters: percent alike, and Cohen's kappa where it is known; None where there are no pairs."""
    shares, kappas = _by_pair(figures.percent_pairs), _by_pair(figures.cohen)
    met = {name for key in shares for name in key}
    names = [voter.name for voter in figures.voters if voter.name in met][:MOST_VOTERS]
    if len(names) < 2:
        return None
    note = ""
    if len(met) > len(names):
        note = f"The first {len(names)} of {len(met)} voters; agreement.json has every pair."
    alike = _pairs("Same vote, in percent", names, shares, _alike, note)
    kappa = _pairs("Cohen's kappa", names, kappas, _beyond_chance, "") if kappas else None
    return alike, kappa


def _by_pair(pairs: Sequence[Pair]) -> ByPair:
    return {frozenset((pair.a, pair.b)): pair for pair in pairs if pair.measure.value is not None}


def _pairs(title: str, names: list[str], pairs: ByPair, said: Said, note: str) -> Grid:
    values = [pair.measure.value or 0.0 for key, pair in pairs.items() if key <= set(names)]
    floor = min(0.9, math.floor(min(values, default=0.0) * 10) / 10)
    said = _brief(said) if len(names) > DENSE else said
    lines = tuple(
        Line(a, tuple(_pair_cell(a, b, pairs.get(frozenset((a, b))), said, floor) for b in names))
        for a in names
    )
    low, high = (said(Measure(end))[0] for end in (floor, 1.0))
    return Grid(title, tuple(names), lines, _extremes(list(pairs.values()), said), note, low, high)


def _alike(measure: Measure) -> tuple[str, str]:
    """In the cell, and in words."""
    share = measure.value or 0.0
    of = "" if measure.n is None else f" of {counted(measure.n, 'row')}"
    return f"{share * 100:.0f}", f"same vote on {percent(share)}{of}"


def _beyond_chance(measure: Measure) -> tuple[str, str]:
    value = measure.value or 0.0
    says = f"kappa {decimal(value)}"
    if measure.low is not None and measure.high is not None:
        says += f" ({span(decimal(measure.low), decimal(measure.high))})"
    return f"{value:.2f}".replace("-", "−"), says


def confusions(figures: Figures) -> tuple[list[Grid], int]:
    """The consensus first, then each voter; and how many voters are left out, that the page stays of a size."""
    voters = [(voter.name, _reference(voter), voter.confusion) for voter in figures.voters]
    apart = {voter.name for voter in figures.voters if voter.has_chosen_rows}
    every = [("Consensus", "gold", figures.confusion), *voters]
    found = [(name, reference, table) for name, reference, table in every if table is not None]
    size = min(MOST_LABELS, max((len(table.labels) for _, _, table in found), default=1))
    kept = found[: max(4, MOST_CELLS // size**2)]
    made = [_confused(*one) for one in kept]
    noted = [
        replace(grid, note=f"{_OPEN_ONLY} {grid.note}".strip()) if name in apart else grid
        for grid, (name, _, _) in zip(made, kept, strict=True)
    ]
    return noted, len(found) - len(kept)


def error_rates(figures: Figures) -> list[Grid]:
    """What Dawid-Skene takes each voter's errors to be: true label × vote, each line adding up to 1."""
    rates = figures.dawid_skene.get("error_rates")
    prior = figures.dawid_skene.get("prior")
    labels: Sequence[Any] = figures.dawid_skene.get("labels") or (
        list(prior) if isinstance(prior, Mapping) else []
    )
    labels = labels or next((list(v.confusion.labels) for v in figures.voters if v.confusion is not None), [])
    named = (
        rates.items()
        if isinstance(rates, Mapping)
        else zip([v.name for v in figures.voters], rates or [], strict=False)
    )
    found = []
    for name, table in named:
        part = table if isinstance(table, Mapping) else {"labels": labels, "counts": table}
        made = confusion(part.get("labels") or labels, part.get("counts") or part.get("rates"))
        if made is not None:
            found.append(_confused(str(name), "true label", made, is_rate=True))
    return found


def _reference(voter: Voter) -> str:
    return "gold" if voter.against == "gold" else "consensus"


def _brief(said: Said) -> Said:
    """Without the zero before the point: small cells."""
    return lambda measure: (said(measure)[0].replace("0.", "."), said(measure)[1])


def _pair_cell(a: str, b: str, pair: Pair | None, said: Said, floor: float) -> Cell:
    if a == b:
        return Cell("", tone="self", says=a)
    if pair is None:
        return Cell("–", says=f"{a} and {b}: not known")
    text, says = said(pair.measure)
    return Cell(
        text, _step(((pair.measure.value or 0.0) - floor) / (1 - floor)), "pair", f"{a} and {b}: {says}"
    )


def _extremes(pairs: list[Pair], said: Said) -> tuple[str, ...]:
    if len(pairs) < 2:
        return ()
    least, *_, most = sorted(pairs, key=lambda pair: pair.measure.value or 0.0)
    return (
        (
            f"Most: {most.a} and {most.b}, {said(most.measure)[1]}."
            f" Least: {least.a} and {least.b}, {said(least.measure)[1]}."
        ),
    )


def _confused(name: str, reference: str, found: Confusion, is_rate: bool = False) -> Grid:
    folded, left = _folded(found)
    labels, counts = folded.labels, folded.counts
    rest = len(labels) - 1 if left else -1
    lines = [
        Line(
            label,
            tuple(_confused_cell(folded, at, to, rest, reference, is_rate) for to in range(len(labels))),
        )
        for at, label in enumerate(labels)
    ]
    if not is_rate:
        lines = [Line(line.name, (*line.cells, _recall(counts, at, rest))) for at, line in enumerate(lines)]
        lines.append(
            Line(
                "right, %",
                (*(_precision(counts, to, rest) for to in range(len(labels))), Cell("", tone="total")),
            )
        )
    note = f"{left} labels that are seldom met are folded into one; agreement.json has all." if left else ""
    return Grid(
        f"{name} against {reference}",
        labels if is_rate else (*labels, "found, %"),
        tuple(lines),
        _mistakes(folded, rest) if not is_rate else (),
        note,
        totals=not is_rate,
    )


def _confused_cell(found: Confusion, at: int, to: int, rest: int, reference: str, is_rate: bool) -> Cell:
    value, total = found.counts[at][to], sum(found.counts[at])
    share = value / total if total else 0.0
    shade = 0.0 if at == to == rest else share if at == to else 2 * share
    tone = "plain" if at == to == rest else "right" if at == to else "wrong"
    says = f"{reference} {found.labels[at]}, vote {found.labels[to]}: "
    if is_rate:
        return Cell(f"{value * 100:.0f}" if value else "·", _step(shade), tone, says + percent(value))
    says += f"{count(value)} of {count(total)}" + (f" ({percent(share)})" if total else "")
    return Cell(count(value) if value else "·", _step(shade) if value else 0, tone, says)


def _recall(counts: Sequence[Sequence[float]], at: int, rest: int) -> Cell:
    return _share_cell(counts[at][at], sum(counts[at]), at == rest)


def _precision(counts: Sequence[Sequence[float]], to: int, rest: int) -> Cell:
    return _share_cell(counts[to][to], sum(line[to] for line in counts), to == rest)


def _share_cell(right: float, total: float, is_folded: bool) -> Cell:
    return Cell("–" if is_folded or not total else f"{right / total * 100:.0f}", tone="total")


def _mistakes(found: Confusion, rest: int) -> tuple[str, ...]:
    wrong = sorted(
        (-value, at, to)
        for at, line in enumerate(found.counts)
        for to, value in enumerate(line)
        if at != to and value and rest not in (at, to)
    )
    if not wrong:
        return ("No mistake among these rows." if sum(map(sum, found.counts)) else "No row to compare.",)
    said = [
        f"{found.labels[at]} taken for {found.labels[to]} ({count(-value)})" for value, at, to in wrong[:3]
    ]
    return (f"Most often: {listed(said)}.",)


def _folded(found: Confusion) -> tuple[Confusion, int]:
    """The labels met most often stay, in their order; of 60 the last 41 become one."""
    left = len(found.labels) - MOST_LABELS + 1
    if left <= 1:
        return found, 0
    met = [sum(line) + sum(other[at] for other in found.counts) for at, line in enumerate(found.counts)]
    kept = sorted(sorted(range(len(met)), key=lambda at: (-met[at], at))[: MOST_LABELS - 1])
    place = {at: new for new, at in enumerate(kept)}
    size = len(kept) + 1
    counts = [[0.0] * size for _ in range(size)]
    for at, line in enumerate(found.counts):
        for to, value in enumerate(line):
            counts[place.get(at, size - 1)][place.get(to, size - 1)] += value
    labels = (*(found.labels[at] for at in kept), f"{left} others")
    return Confusion(labels, tuple(map(tuple, counts))), left


def _step(share: float) -> int:
    return max(0, min(STEPS, round(share * STEPS)))
