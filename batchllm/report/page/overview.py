"""The first page: each figure with how many it is of, its interval, and a sentence that says what it means."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from batchllm.report.page.figures import STATUSES, Figures, Measure, Voter
from batchllm.report.page.text import cost, count, counted, decimal, percent, span

Form: TypeAlias = Callable[[float], str]

_WORDS = {
    "decided": ("decided", "the rule was met"),
    "tied": ("tied", "two or more values lead equally"),
    "undecided": ("undecided", "enough votes, but not enough of them for one value"),
    "too_few": ("too few votes", "too many voters failed or were never asked"),
    "pending": ("pending", "votes may still come: the run is not complete"),
}


@dataclass(frozen=True, slots=True)
class Part:
    """Of the bar of all rows; `left` and `width` in percent of it."""

    status: str
    name: str
    says: str
    rows: int
    share: str
    left: float
    width: float


@dataclass(frozen=True, slots=True)
class Card:
    """`bar`: low, value and high as percent of the axis from `least` to 1; None without an interval."""

    name: str
    value: str
    unit: str
    says: str
    interval: str = ""
    of: str = ""
    why: str = ""
    bar: tuple[float, float, float] | None = None


@dataclass(frozen=True, slots=True)
class Overview:
    rows: str
    decided: str
    accuracy: str
    best: Voter | None
    best_accuracy: str
    cost: str
    per_decided: str
    saved: str
    parts: tuple[Part, ...]
    cards: tuple[Card, ...]


def overview(figures: Figures) -> Overview:
    best = _best(figures)
    saved = figures.calls.get("saved_share")
    return Overview(
        count(figures.rows),
        count(figures.counts["decided"]),
        "" if figures.accuracy.value is None else percent(figures.accuracy.value),
        best,
        "" if best is None or best.accuracy.value is None else percent(best.accuracy.value),
        "" if figures.cost_usd is None else cost(figures.cost_usd),
        "" if figures.per_decided_usd is None else cost(figures.per_decided_usd),
        percent(saved) if saved else "",
        _parts(figures),
        tuple(_cards(figures)),
    )


def _best(figures: Figures) -> Voter | None:
    """The voter that is right most often by gold."""
    known = [v for v in figures.voters if v.against == "gold" and v.accuracy.value is not None]
    return max(known, key=lambda voter: voter.accuracy.value or 0.0, default=None)


def _parts(figures: Figures) -> tuple[Part, ...]:
    total = sum(figures.counts.values())
    parts, left = [], 0.0
    for status in STATUSES:
        rows = figures.counts[status]
        width = 100 * rows / total if total else 0.0
        name, says = _WORDS[status]
        share = percent(rows / total) if total else "–"
        parts.append(Part(status, name, says, rows, share, round(left, 3), round(width, 3)))
        left += width
    return tuple(parts)


def _cards(figures: Figures) -> list[Card]:
    cards = [
        _share("Accuracy of the consensus", figures.accuracy, "decided rows with gold",
               "How many of the decided rows have the value that gold has."),
        _share("Macro F1 of the consensus", figures.macro_f1, "decided rows with gold",
               "Accuracy in which each label counts the same, however rare it is."),
        _share("Percent agreement", figures.percent, "rows with two votes or more",
               "How often two voters give a row the same vote. Some of that is chance."),
        _coefficient("Krippendorff’s alpha", figures.alpha, "votes"
                     if figures.alpha.scale == "interval" else "rows",
                     "Agreement beyond chance, missing votes allowed: 1 is perfect, 0 is what chance gives. From 0.80"
                     " on votes count as reliable; below 0.67 better not build on them."),
        _coefficient("Fleiss’ kappa", figures.fleiss, "rows",
                     "The same question for rows on which everybody voted: 1 is perfect, 0 is chance."),
    ]  # fmt: skip
    return [*cards, *_money(figures)]


def _money(figures: Figures) -> list[Card]:
    known = figures.cost_usd is not None
    cards = [
        Card(
            "Cost",
            cost(figures.cost_usd) if known else "unknown",
            "",
            "What all calls for votes have cost, those of ties and judges included.",
            of=counted(figures.rows, "row"),
            why="" if known else "a lane has no known price: set its price in the job",
        ),
        Card(
            "Cost of an agreed row",
            cost(figures.per_decided_usd) if figures.per_decided_usd is not None else "unknown",
            "",
            "All that was spent, shared among the rows that were decided.",
            of=counted(figures.counts["decided"], "decided row"),
            why="" if figures.per_decided_usd is not None else "no row is decided, or the cost is not known",
        ),
    ]
    saved, share = figures.calls.get("saved"), figures.calls.get("saved_share")
    if saved:
        made = figures.calls.get("made", 0.0)
        cards.append(
            Card(
                "Calls saved",
                percent(share if share is not None else saved / (made + saved)),
                "",
                "Votes never asked for, since those cast had decided the row already (stop_early).",
                of=f"{count(saved)} of {count(made + saved)} calls",
            )
        )
    return cards


def _share(name: str, measure: Measure, of: str, says: str) -> Card:
    shown = ("–", "") if measure.value is None else (f"{measure.value * 100:.1f}", "%")
    return _card(name, measure, shown, of, says, percent)


def _coefficient(name: str, measure: Measure, of: str, says: str) -> Card:
    value = "–" if measure.value is None else decimal(measure.value)
    if measure.scale:
        says += f" Votes are compared on the {measure.scale} scale."
    return _card(name, measure, (value, ""), of, says, decimal)


def _card(name: str, measure: Measure, shown: tuple[str, str], of: str, says: str, form: Form) -> Card:
    """`shown`: the value as text, and its unit."""
    interval, bar = "", None
    if measure.value is not None and measure.low is not None and measure.high is not None:
        interval = span(form(measure.low), form(measure.high))
        bar = (_place(measure.low), _place(measure.value), _place(measure.high))
    of = f"{count(measure.n)} {of}" if measure.n is not None else ""
    why = measure.why or ("not computed" if measure.value is None else "")
    return Card(name, *shown, says, interval, of, why, bar)


def _place(value: float) -> float:
    return round(100 * max(0.0, min(1.0, value)), 3)
