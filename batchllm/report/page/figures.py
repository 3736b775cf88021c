"""agreement.json as typed values. Whatever is missing, null or not a number is None with the reason that stands there.

The file may be of another version, or written by hand: only what is there is shown, and nothing is trusted to be text
that can be shown.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from batchllm.report.page.text import clean, with_ends

_NAME_CHARS = 80
_SENTENCE_CHARS = 400
_MOST_NOTES = 20
STATUSES = ("decided", "tied", "undecided", "too_few", "pending")


@dataclass(frozen=True, slots=True)
class Measure:
    """One statistic, with its 95 % interval where it has one. `why`: the reason for which it has no value."""

    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    why: str = ""
    scale: str = ""


@dataclass(frozen=True, slots=True)
class Confusion:
    """`counts`: gold × vote."""

    labels: tuple[str, ...]
    counts: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True)
class Score:
    """How good votes are: labels are right or wrong, numbers are off. The other half has no value."""

    accuracy: Measure
    macro_f1: Measure
    error: Measure
    bias: Measure
    correlation: Measure

    @property
    def main(self) -> Measure:
        """Mean absolute error of numbers, accuracy of labels."""
        return self.accuracy if self.error.value is None else self.error


@dataclass(frozen=True, slots=True)
class Voter:
    """`is_late`: asked only where the others leave a row open. `score` is against gold or consensus: `against`.

    `not_asked`: rows that were settled without it.
    """

    name: str
    lane: str
    votes: int
    missing: int
    not_asked: int
    score: "Score"
    against: str
    confusion: Confusion | None
    is_late: bool
    cost_usd: float | None
    p50_ms: float | None
    p95_ms: float | None
    weight: float | None

    @property
    def has_chosen_rows(self) -> bool:
        """Others' votes decided which rows it was asked about: it is not held against those who had all of them."""
        return self.is_late or self.not_asked > 0


@dataclass(frozen=True, slots=True)
class Comparison:
    """Accuracy of `a` minus that of `b` (numbers: mean absolute error), on `n` rows with both votes and gold."""

    a: str
    b: str
    n: int
    only_a: int
    only_b: int
    p_value: float | None
    difference: Measure
    is_error: bool = False


@dataclass(frozen=True, slots=True)
class Pair:
    a: str
    b: str
    measure: Measure


@dataclass(frozen=True, slots=True)
class Figures:
    created: str
    settings: Mapping[str, Any]
    rows: int
    counts: Mapping[str, int]
    voters: tuple[Voter, ...]
    percent: Measure
    fleiss: Measure
    alpha: Measure
    cohen: tuple[Pair, ...]
    percent_pairs: tuple[Pair, ...]
    score: Score
    confusion: Confusion | None
    outside_gold: int
    comparisons: tuple[Comparison, ...]
    cost_usd: float | None
    per_decided_usd: float | None
    calls: Mapping[str, float] = field(default_factory=dict)
    judge: Mapping[str, float] = field(default_factory=dict)
    dawid_skene: Mapping[str, Any] = field(default_factory=dict)
    agreement_note: str = ""
    notes: tuple[str, ...] = ()

    @property
    def has_gold(self) -> bool:
        return self.score.main.value is not None or any(
            voter.against == "gold" and voter.score.main.value is not None for voter in self.voters
        )

    @property
    def is_number(self) -> bool:
        return any(
            score.error.value is not None for score in (self.score, *(voter.score for voter in self.voters))
        )


def read(agreement: Mapping[str, Any]) -> Figures:
    between, consensus = _part(agreement, "agreement"), _part(agreement, "consensus")
    cost, counts = _part(agreement, "cost"), _part(agreement, "counts")
    return Figures(
        created=_text(agreement.get("created")),
        settings=_part(agreement, "settings"),
        rows=_whole(agreement.get("rows")),
        counts={name: _whole(counts.get(name)) for name in STATUSES},
        voters=tuple(_voter(said) for said in _each(agreement, "voters")),
        percent=_measure(between, "percent"),
        fleiss=_measure(between, "fleiss"),
        alpha=_measure(between, "alpha"),
        cohen=tuple(_pair(said) for said in _each(between, "cohen")),
        percent_pairs=tuple(_pair(said) for said in _each(between, "percent_pairs")),
        score=_score(consensus),
        confusion=_confusion(consensus.get("confusion")),
        outside_gold=_whole(_part(agreement, "gold").get("outside")),
        comparisons=tuple(_comparison(said) for said in _each(agreement, "comparisons")),
        cost_usd=real(cost.get("usd")),
        per_decided_usd=real(cost.get("per_decided_usd")),
        calls=_reals(agreement, "calls"),
        judge=_reals(agreement, "judge"),
        dawid_skene=_part(agreement, "dawid_skene"),
        agreement_note=_sentence(between.get("note")),
        notes=tuple(_sentence(note) for note in _list(agreement.get("notes")))[:_MOST_NOTES],
    )


def real(value: object) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) else None  # type: ignore[arg-type]  # narrowed above


def confusion(labels: object, counts: object) -> Confusion | None:
    """None where the counts are no square table of the labels."""
    if not isinstance(labels, Sequence) or not isinstance(counts, Sequence) or not labels:
        return None
    table = tuple(
        tuple(real(value) or 0.0 for value in line) if isinstance(line, Sequence) else () for line in counts
    )
    if [len(labels)] * len(labels) != [len(line) for line in table]:
        return None
    return Confusion(tuple(_text(with_ends(str(label))) for label in labels), table)


def _measure(part: Mapping[str, Any], name: str) -> Measure:
    """A statistic is a mapping, a number, or null; `why` stands in it, beside it, or in the part's own `why`."""
    said = part.get(name)
    beside = part.get(f"{name}_why") or part.get("why")
    why = _sentence(beside.get(name) if isinstance(beside, Mapping) else beside)
    if not isinstance(said, Mapping):
        return Measure(real(said), why=why if real(said) is None else "")
    value = real(said.get("value"))
    n = real(said.get("n"))
    return Measure(
        value,
        real(said.get("low")),
        real(said.get("high")),
        None if n is None else int(n),
        "" if value is not None else _sentence(said.get("why")) or why,
        _text(said.get("scale")),
    )


def _score(said: Mapping[str, Any]) -> Score:
    error = _part(said, "error")
    return Score(
        _measure(said, "accuracy"),
        _measure(said, "macro_f1"),
        _measure(error, "mean_absolute"),
        _measure(error, "bias"),
        _measure(error, "pearson"),
    )


def _voter(said: Mapping[str, Any]) -> Voter:
    latency = _part(said, "latency_ms")
    return Voter(
        name=_text(said.get("name")) or "?",
        lane=_text(said.get("lane")),
        votes=_whole(said.get("votes")),
        missing=_whole(said.get("missing")),
        not_asked=_whole(said.get("not_asked")),
        score=_score(said),
        against=_text(said.get("against")),
        confusion=_confusion(said.get("confusion")),
        is_late=bool(said.get("is_late")),
        cost_usd=real(said.get("cost_usd")),
        p50_ms=real(latency.get("p50")),
        p95_ms=real(latency.get("p95")),
        weight=real(said.get("weight")),
    )


def _pair(said: Mapping[str, Any]) -> Pair:
    return Pair(_text(said.get("a")), _text(said.get("b")), _measure({"pair": said}, "pair"))


def _comparison(said: Mapping[str, Any]) -> Comparison:
    return Comparison(
        _text(said.get("a")),
        _text(said.get("b")),
        _whole(said.get("n")),
        _whole(said.get("only_a")),
        _whole(said.get("only_b")),
        real(said.get("p_value")),
        _measure(said, "difference"),
        said.get("of") == "mean_absolute",
    )


def _confusion(said: object) -> Confusion | None:
    return confusion(said.get("labels"), said.get("counts")) if isinstance(said, Mapping) else None


def _part(said: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = said.get(name)
    return part if isinstance(part, Mapping) else {}


def _reals(said: Mapping[str, Any], name: str) -> Mapping[str, float]:
    return {key: value for key, raw in _part(said, name).items() if (value := real(raw)) is not None}


def _each(said: Mapping[str, Any], name: str) -> Iterator[Mapping[str, Any]]:
    parts = said.get(name)
    if isinstance(parts, Sequence) and not isinstance(parts, str):
        yield from (part for part in parts if isinstance(part, Mapping))


def _list(value: object) -> Sequence[object]:
    return value if isinstance(value, list | tuple) else ()


def _text(value: object) -> str:
    return "" if value is None else clean(str(value), _NAME_CHARS)


def _sentence(value: object) -> str:
    return "" if value is None else clean(str(value), _SENTENCE_CHARS)


def _whole(value: object) -> int:
    return int(real(value) or 0)
