"""The first page: each figure with how many it is of, its interval, and a sentence that says what it means."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

from batchllm.report.page.figures import STATUSES, Figures, Measure
from batchllm.report.page.text import cost, count, counted, decimal, number, percent, span

Form: TypeAlias = Callable[[float], str]

_NO_GOLD = "no gold: name its column as gold to have it measured"
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
    """`right`: what the headline says after the rows that are decided, with the number apart: before, number, after.

    `best`: of whom, who, and how good.
    """

    rows: str
    decided: str
    right: tuple[str, str, str] | None
    best: tuple[str, str, str] | None
    cost: str
    per_decided: str
    saved: str
    outside_gold: int
    parts: tuple[Part, ...]
    cards: tuple[Card, ...]


def overview(figures: Figures) -> Overview:
    saved = figures.calls.get("saved_share")
    return Overview(
        count(figures.rows),
        count(figures.counts["decided"]),
        _right(figures),
        _best(figures),
        "" if figures.cost_usd is None else cost(figures.cost_usd),
        "" if figures.per_decided_usd is None else cost(figures.per_decided_usd),
        percent(saved) if saved else "",
        figures.outside_gold,
        _parts(figures),
        tuple(_cards(figures)),
    )


def _right(figures: Figures) -> tuple[str, str, str] | None:
    score = figures.score
    if score.error.value is not None:
        return ", ", number(score.error.value), " away from gold on average"
    if score.accuracy.value is not None:
        return ", and ", percent(score.accuracy.value), " of those with gold are right"
    return None


def _best(figures: Figures) -> tuple[str, str, str] | None:
    """The voter that is best by gold, and how good it is; one that saw the open rows alone is no candidate."""
    judged = [v for v in figures.voters if v.against == "gold" and v.score.main.value is not None]
    known = [(v.score.main.value or 0.0, v.name) for v in judged if not v.has_chosen_rows]
    if len(known) < 2:
        return None
    of = (
        "The best single voter"
        if len(known) == len(judged)
        else "The best voter that was asked about every row"
    )
    if figures.is_number:
        value, name = min(known)
        return of, name, f"is off by {number(value)} on average"
    value, name = max(known, key=lambda one: one[0])
    return of, name, f"is right on {percent(value)} of its votes"


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
    alpha = figures.alpha
    return [
        *_goodness(figures),
        _share("Percent agreement", figures.percent, "rows with two votes or more",
               "How often two voters give a row the same vote. Some of that is chance."),
        _coefficient("Krippendorff's alpha", alpha, "rows",
                     "Agreement beyond chance, missing votes allowed: 1 is perfect, 0 is what chance gives. From 0.80"
                     " on votes count as reliable; on less than 0.67 nothing should be built."
                     + (f" Votes are compared on the {alpha.scale} scale." if alpha.scale else "")),
        _coefficient("Fleiss' kappa", figures.fleiss, "rows",
                     "The same question as it is asked more often: chance is how often each value is used by all"
                     " together. 1 is perfect, 0 is chance."),
        *_money(figures),
    ]  # fmt: skip


def _goodness(figures: Figures) -> list[Card]:
    score = figures.score
    of = "decided rows with gold"
    if figures.is_number:
        cards = [
            _amount(
                "Mean error of the consensus",
                score.error,
                of,
                "How far it is from gold on average, up or down.",
            ),
            _amount(
                "Bias of the consensus", score.bias, of, "How far it lies above gold on average (−: below)."
            ),
        ]
        return [card for card in cards if not card.why] or [
            replace(cards[0], why=score.error.why or _NO_GOLD)
        ]
    accuracy = _share("Accuracy of the consensus", score.accuracy, of,
                      "How many of the decided rows have the value that gold has.")  # fmt: skip
    if score.accuracy.value is None:
        return [accuracy if score.accuracy.why else replace(accuracy, why=_NO_GOLD)]
    return [
        accuracy,
        _share("Macro F1 of the consensus", score.macro_f1, of,
               "Accuracy in which each label counts the same, however rare it is."),
    ]  # fmt: skip


def _money(figures: Figures) -> list[Card]:
    """None where nobody was asked, since the votes were there already."""
    if not figures.calls and figures.cost_usd is None:
        return []
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
                f"{100 * (share if share is not None else saved / (made + saved)):.1f}",
                "%",
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
    return _card(name, measure, (value, ""), of, says, decimal)


def _amount(name: str, measure: Measure, of: str, says: str) -> Card:
    """In the unit of the votes: it has no axis from 0 to 1."""
    value = "–" if measure.value is None else number(measure.value)
    return replace(_card(name, measure, (value, ""), of, says, number), bar=None)


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
