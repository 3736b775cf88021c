"""All that is measured of a consensus, as the dictionary that agreement.json holds (format 1).

Every number is finite or None. A statistic is {value, low, high, n}, and where it has no value, `why` says so beside
it. Accuracy, macro F1, figures by label and confusion are of votes that are labels; `error` is of numbers in their
place. They are against gold where a row has any that is one of the labels, else against the consensus.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from math import isfinite
from typing import Literal

import numpy as np
import numpy.typing as npt

from batchllm.consensus import accuracy, agreement, alpha, comparing, deviation
from batchllm.consensus.bootstrap import Estimate, Resampling
from batchllm.consensus.patterns import Patterns, patterns_of
from batchllm.consensus.votes import MISSING, Codes, LabelVotes, Numbers, Votes

FORMAT = 1

Scale = Literal["nominal", "ordinal", "interval"]
Section = dict[str, object]

#: A table of more labels is no longer looked at, and has more than 65,536 counts for each voter.
MOST_LABELS = 256
#: Their 496 pairs take some seconds; more voters are samples of one lane as a rule, whose pairs are all alike.
MOST_PAIRED = 32

_ONE_ASKED = "fewer than two voters were asked about every row"


@dataclass(frozen=True, slots=True)
class Voter:
    """What is known of a voter beside its votes; None: not known.

    `latency_ms`: p50 and p95. `is_late`: it is asked only where the others leave a row open (escalation, judge). Such
    a voter is measured, but left out of what is said of all voters: it has seen the hard rows alone. `not_asked`: the
    rows that it was not asked about, since their votes were settled without it.
    """

    lane: str
    cost_usd: float | None = None
    latency_ms: Mapping[str, float | None] | None = None
    weight: float | None = None
    is_late: bool = False
    not_asked: int = 0

    @property
    def has_chosen_rows(self) -> bool:
        """What others had voted decided which rows it was asked about, and they were the harder ones."""
        return self.is_late or self.not_asked > 0


@dataclass(frozen=True, slots=True)
class Told:
    """What is not measured here but stands beside it. `counts`: rows by status, `decided` among them."""

    created: str
    settings: Mapping[str, object]
    counts: Mapping[str, int]
    voters: Sequence[Voter]
    cost_usd: float | None = None
    calls: Mapping[str, object] | None = None
    judge: Mapping[str, object] | None = None
    dawid_skene: Mapping[str, object] | None = None


@dataclass(frozen=True, slots=True)
class _Truth:
    """Right values, one for each row: codes into `labels`, or numbers, which have none."""

    against: Literal["gold", "consensus"]
    right: Codes | Numbers
    labels: tuple[str, ...] | None


def measure(
    votes: Votes,
    agreed: Codes | Numbers,
    gold: Codes | Numbers | None,
    scale: Scale,
    told: Told,
    resampling: Resampling,
) -> Section:
    """The dictionary of agreement.json.

    `agreed` and `gold`: one for each row, of the votes' kind. Codes: -1 is none, `accuracy.OUTSIDE` a gold value that
    is no label; numbers: NaN is none.
    """
    labels = votes.values if isinstance(votes, LabelVotes) else None
    by_gold = None if gold is None or not _known(gold).any() else _Truth("gold", gold, labels)
    truth = by_gold or _Truth("consensus", agreed, labels)
    return _plain(
        {
            "format": FORMAT,
            "created": told.created,
            "settings": told.settings,
            "rows": len(agreed),
            "counts": told.counts,
            "gold": None if gold is None else _gold_counts(gold),
            "voters": _voters(votes, truth, told.voters, resampling),
            "agreement": _agreement(votes, scale, told, resampling),
            "consensus": _goodness(by_gold, agreed, resampling),
            "comparisons": [] if by_gold is None else _comparisons(votes, by_gold, told.voters, resampling),
            "cost": _cost(told.cost_usd, told.counts.get("decided", 0)),
            "calls": told.calls,
            "judge": told.judge,
            "dawid_skene": told.dawid_skene,
        }
    )


def _known(values: Codes | Numbers) -> npt.NDArray[np.bool_]:
    return np.isfinite(values) if values.dtype.kind == "f" else values >= 0


def _gold_counts(gold: Codes | Numbers) -> Section:
    """`outside`: gold that is none of the labels, or no finite number."""
    known = int(np.count_nonzero(_known(gold)))
    missing = int(np.count_nonzero(np.isnan(gold) if gold.dtype.kind == "f" else gold == MISSING))
    return {"known": known, "missing": missing, "outside": len(gold) - known - missing}


def _columns(votes: Votes) -> Codes | Numbers:
    return votes.codes if isinstance(votes, LabelVotes) else votes.numbers


def _codes(column: Codes | Numbers) -> Codes:
    """What is known to be codes."""
    return column.astype(np.int32, copy=False)


def _numbers(column: Codes | Numbers) -> Numbers:
    return column.astype(np.float64, copy=False)


def _voters(votes: Votes, truth: _Truth, known: Sequence[Voter], resampling: Resampling) -> list[Section]:
    cast = np.count_nonzero(votes.cast, axis=0)
    return [
        {
            "name": name,
            "lane": voter.lane,
            "votes": int(cast[place]),
            "missing": len(votes.cast) - int(cast[place]) - voter.not_asked,
            "not_asked": voter.not_asked,
            "is_late": voter.is_late,
            "against": truth.against,
            **_goodness(truth, _columns(votes)[:, place], resampling),
            "cost_usd": voter.cost_usd,
            "latency_ms": voter.latency_ms,
            "weight": voter.weight,
        }
        for place, (name, voter) in enumerate(zip(votes.voters, known, strict=True))
    ]


def _goodness(truth: _Truth | None, voted: Codes | Numbers, resampling: Resampling) -> Section:
    """All None without a truth; `error` is of numbers, the rest of labels."""
    found: Section = dict.fromkeys(("accuracy", "macro_f1", "by_label", "confusion", "error"))
    if truth is None:
        return found
    labels = truth.labels
    if labels is None:
        return found | {"error": _error(_numbers(truth.right), _numbers(voted), resampling)}
    table = accuracy.confusion(_codes(truth.right), _codes(voted), len(labels))
    found["accuracy"] = statistic(table.accuracy(resampling))
    found["macro_f1"] = statistic(table.macro_f1(resampling))
    met = table.labels()
    shown = np.arange(len(labels)) if len(labels) <= MOST_LABELS else met
    if len(shown) > MOST_LABELS:
        found["why"] = f"{len(shown):,} values: confusion and figures by label are of up to {MOST_LABELS}"
        return found
    found["by_label"] = [asdict(each) | {"label": labels[each.label]} for each in table.by_label()]
    found["confusion"] = {"labels": [labels[at] for at in shown], "counts": table.table(shown)}
    return found


def _error(right: Numbers, voted: Numbers, resampling: Resampling) -> Section:
    found = deviation.deviation(right, voted, resampling)
    return {
        "mean_absolute": statistic(found.mean_absolute),
        "root_mean_square": statistic(found.root_mean_square),
        "bias": statistic(found.bias),
        "pearson": statistic(found.pearson),
        "spearman": statistic(found.spearman),
        "infinite": found.infinite,
    }


@dataclass(frozen=True, slots=True)
class _Cast:
    """The votes by pattern. `different`: what the codes stand for, ascending, where votes are numbers."""

    patterns: Patterns
    different: Numbers | None

    def numbers(self, *voters: int) -> Numbers:
        """Patterns × these voters, NaN missing; of labels it is their places in the order."""
        codes = self.patterns.codes[:, list(voters)]
        if self.different is None:
            return np.where(codes == MISSING, np.nan, codes)
        return np.append(self.different, np.nan)[codes]  # -1 is the last

    def without_kappa(self, n: int = 0) -> Estimate | None:
        """Of numbers of which no two are equal; None where it makes sense to ask whether votes are."""
        if self.different is None or len(self.different) <= MOST_LABELS:
            return None
        return Estimate(None, None, None, n, f"{len(self.different):,} different numbers are rarely equal")


def _agreement(votes: Votes, scale: Scale, told: Told, resampling: Resampling) -> Section:
    """Of the voters that were asked about every row: on rows that others leave open all agree less than elsewhere."""
    asked = [place for place, voter in enumerate(told.voters) if not voter.has_chosen_rows]
    names = [votes.voters[place] for place in asked]
    cast = _cast(votes, asked)
    found: Section = {
        "voters": names,
        "percent": statistic(agreement.percent(cast.patterns, resampling)),
        "fleiss": statistic(cast.without_kappa() or agreement.fleiss(cast.patterns, resampling)),
        "alpha": _alpha(cast, scale, resampling),
        "cohen": [],
        "percent_pairs": [],
    }
    apart = [
        name
        for name, voter in zip(votes.voters, told.voters, strict=True)
        if voter.not_asked and not voter.is_late
    ]
    if apart:
        found["note"] = f"{_of_chosen(apart)}, and left out of agreement"
    if apart and len(names) < 2:
        nothing = statistic(Estimate(None, None, None, 0, _ONE_ASKED))
        found |= {"percent": nothing, "fleiss": nothing, "alpha": {**nothing, "scale": scale, "infinite": 0}}
    if len(names) > MOST_PAIRED:
        return found | {"why": f"{len(names)} voters: pairs are measured of up to {MOST_PAIRED}"}
    pairs = [_pair(names, places, cast, scale, resampling) for places in _pairs(names)]
    return found | {"cohen": [kappa for kappa, _ in pairs], "percent_pairs": [share for _, share in pairs]}


def _pairs(names: Sequence[str]) -> Iterator[tuple[int, int]]:
    return combinations(range(len(names)), 2)


def _cast(votes: Votes, asked: list[int]) -> _Cast:
    if isinstance(votes, LabelVotes):
        patterns = patterns_of(votes.codes[:, asked], len(votes.values))
        return _Cast(patterns, None)
    codes, different = coded(votes.numbers[:, asked])
    return _Cast(patterns_of(codes, len(different)), different)


def coded(numbers: Numbers) -> tuple[Codes, Numbers]:
    """Numbers as codes into the different ones, ascending; NaN is -1."""
    cast = ~np.isnan(numbers)
    different, places = np.unique(numbers[cast], return_inverse=True)
    codes = np.full(numbers.shape, MISSING, np.int32)
    codes[cast] = places
    return codes, different


def _alpha(cast: _Cast, scale: Scale, resampling: Resampling) -> Section:
    """`infinite`: numbers left out of the interval scale, which has no place for them."""
    infinite = 0
    if scale == "nominal":
        found = alpha.nominal(cast.patterns, resampling)
    elif scale == "ordinal":
        found = alpha.ordinal(cast.patterns, resampling)
    else:
        numbers = cast.numbers(*range(cast.patterns.codes.shape[1]))
        is_infinite = np.isinf(numbers)
        infinite = int(cast.patterns.counts @ np.count_nonzero(is_infinite, axis=1))
        numbers[is_infinite] = np.nan
        found = alpha.interval(numbers, cast.patterns.counts, resampling)
    return statistic(found) | {"scale": scale, "infinite": infinite}


def _pair(
    names: Sequence[str], places: tuple[int, int], cast: _Cast, scale: Scale, resampling: Resampling
) -> tuple[Section, Section]:
    """Cohen's kappa of two, with the quadratic one beside it where values have an order, and their agreement."""
    named: Section = {"a": names[places[0]], "b": names[places[1]]}
    pair = cast.patterns.of(*places)
    share = agreement.percent_of_two(pair)
    said = named | statistic(cast.without_kappa(share.n) or agreement.cohen(pair, resampling))
    if scale != "nominal":
        numbers, counts = cast.numbers(*places), cast.patterns.counts
        said["quadratic"] = statistic(agreement.quadratic(numbers, counts, resampling))
    return said, named | {
        name: part for name, part in statistic(share).items() if name not in {"low", "high"}
    }


def _comparisons(
    votes: Votes, truth: _Truth, known: Sequence[Voter], resampling: Resampling
) -> list[Section]:
    """None of more voters than pairs are measured of.

    Where others' votes chose the rows of one of the two, nothing is said of which is better: on the rows on which the
    first two voters differ, each of these is wrong about every other time, however good it is.
    """
    if len(votes.voters) > MOST_PAIRED:
        return []
    return [
        {
            "a": votes.voters[first],
            "b": votes.voters[second],
            "n": one.n,
            "only_a": one.only_first,
            "only_b": one.only_second,
            "p_value": one.p_value if one.n and not chosen else None,
            "of": "mean_absolute" if truth.labels is None else "accuracy",
            "difference": statistic(Estimate(None, None, None, one.n, _of_chosen(chosen)))
            if chosen
            else statistic(one.difference),
        }
        for first, second in _pairs(votes.voters)
        for chosen in [[votes.voters[at] for at in (first, second) if known[at].has_chosen_rows]]
        for one in [_compared(votes, truth.right, first, second, resampling)]
    ]


def _of_chosen(voters: Sequence[str]) -> str:
    were = "was" if len(voters) == 1 else "were"
    return f"{', '.join(voters)} {were} asked only about rows that the votes before had left open"


def _compared(
    votes: Votes, right: Codes | Numbers, first: int, second: int, resampling: Resampling
) -> comparing.Comparison:
    if isinstance(votes, LabelVotes):
        codes = votes.codes
        return comparing.compare_labels(_codes(right), codes[:, first], codes[:, second], resampling)
    numbers = votes.numbers
    return comparing.compare_numbers(_numbers(right), numbers[:, first], numbers[:, second], resampling)


def _cost(usd: float | None, decided: int) -> Section:
    return {"usd": usd, "per_decided_usd": usd / decided if usd is not None and decided else None}


def statistic(found: Estimate) -> Section:
    """As agreement.json has it."""
    section: Section = {"value": found.value, "low": found.low, "high": found.high, "n": found.n}
    return section if found.why is None else section | {"why": found.why}


def _plain(section: Mapping[str, object]) -> Section:
    """Python's own values only, and numbers that are finite or None."""
    return {str(key): _plain_value(value) for key, value in section.items()}


def _plain_value(value: object) -> object:
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, float):
        return value if isfinite(value) else None
    if isinstance(value, Mapping):
        return _plain(value)
    if isinstance(value, list | tuple):
        return [_plain_value(each) for each in value]
    return value
