"""Votes that are sets of labels: the rule decides each label, in or out, and those that are in make the set.

A row is decided when each of its labels is; it is tied when one of them is and none is undecided. What leads a row that
is open are two sets at most: the labels that lead alone, and those with the tied ones beside them. Share and margin are
those of the label that is least sure, entropy is the sum over the labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from batchllm.consensus.alike import Bools, Ints, distinct_rows, pieces
from batchllm.consensus.rules import By, Decisions, Status, decide
from batchllm.consensus.terms import Terms
from batchllm.consensus.votes import MISSING, Codes, LabelVotes

_OUT, _IN = 0, 1
#: Stands for each label that no vote of a row names: all are for leaving it out.
_UNNAMED = -1
#: About as many labels are named by the votes of a row; that many cells of it are worked on at a time.
_LABELS_OF_A_ROW = 8
LabelSet = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SetVotes:
    """`codes`: rows × voters, places in `sets`; a set has the places of its labels in ascending order. -1: no vote."""

    voters: tuple[str, ...]
    labels: tuple[str, ...]
    sets: tuple[LabelSet, ...]
    codes: Codes


@dataclass(frozen=True, slots=True)
class SetDecisions:
    """`decisions` has codes into `sets`: those of the votes, and after them the sets that nobody voted for."""

    sets: tuple[LabelSet, ...]
    decisions: Decisions


def decide_sets(votes: SetVotes, terms: Terms, weights: Sequence[float] | None = None) -> SetDecisions:
    """What the votes decide, label by label; weights as for `decide`. Memory goes by the labels that are named."""
    found = distinct_rows(votes.codes)
    sets = {labels: place for place, labels in enumerate(votes.sets)}
    cuts = list(pieces(len(found.rows), _LABELS_OF_A_ROW * len(votes.voters))) or [slice(0)]
    parts = [_decided(replace(votes, codes=found.rows[cut]), sets, terms, weights) for cut in cuts]
    return SetDecisions(tuple(sets), Decisions.joined(parts).taken(found.of_row))


def _decided(
    votes: SetVotes, sets: dict[LabelSet, int], terms: Terms, weights: Sequence[float] | None
) -> Decisions:
    """`sets` grows by those that nobody voted for."""
    count = len(votes.codes)
    pattern_of, label_of, members = _memberships(votes.sets, votes.codes)
    each = decide(LabelVotes(votes.voters, ("out", "in"), members), terms, weights)
    lines = _by_pattern(each, pattern_of, count)
    certain, possible = _leading_labels(each)
    small = _named(sets, certain, pattern_of, label_of, np.arange(count))
    large = small.copy()
    unsure = np.unique(pattern_of[certain != possible])
    large[unsure] = _named(sets, possible, pattern_of, label_of, unsure)
    winner = np.where(lines.status == Status.DECIDED, small, np.int32(MISSING))
    leaders = np.where(lines.cast == 0, 0, np.where(small == large, 1, 2))
    both = np.stack((np.minimum(small, large), np.maximum(small, large)), axis=1)
    leading = both[np.arange(2) < leaders[:, None]]
    offsets = np.concatenate((np.zeros(1, np.int64), np.cumsum(leaders, dtype=np.int64)))
    return replace(lines, winner=winner, offsets=offsets, leading=leading)


def break_set_ties(decided: SetDecisions, column: Codes, by: By = By.ESCALATED) -> SetDecisions:
    """Let one more voter choose in the rows that are open: `column` has its sets, as codes into `decided.sets`.

    -1 is no vote. Each tied label goes with its vote; a row with an undecided label is decided by a set that leads, and
    by no other.
    """
    sets = {labels: place for place, labels in enumerate(decided.sets)}
    old = decided.decisions
    status, winner, by_whom = old.status.copy(), old.winner.copy(), old.by.copy()
    for row in np.flatnonzero(old.is_open & (column != MISSING)):
        leading = old.leading[old.offsets[row] : old.offsets[row + 1]]
        vote = decided.sets[column[row]]
        if old.status[row] == Status.TIED:
            options = sorted((decided.sets[code] for code in leading), key=len)
            chosen = {*options[0], *(set(options[-1]) & set(vote))}
            winner[row] = sets.setdefault(tuple(sorted(chosen)), len(sets))
        elif column[row] in leading:
            winner[row] = column[row]
        else:
            continue
        status[row], by_whom[row] = Status.DECIDED, by
    return SetDecisions(tuple(sets), replace(old, status=status, winner=winner, by=by_whom))


def _memberships(sets: Sequence[LabelSet], rows: Codes) -> tuple[Ints, Ints, Codes]:
    """A line for each pattern and each label that one of its votes names, and one for the unnamed: who is for it.

    Lines of a pattern stand together: its place, the label, and lines × voters of in, out and no vote.
    """
    sizes = np.array([len(labels) for labels in sets] + [0], np.int64)  # the last is that of -1
    starts = np.cumsum(sizes) - sizes
    flat = np.array([label for labels in sets for label in labels], np.int64)
    count = sizes[rows]  # patterns × voters
    cell = np.repeat(np.arange(rows.size), count.ravel())
    within = np.arange(len(cell)) - np.repeat(np.cumsum(count) - count.ravel(), count.ravel())
    label = flat[starts[rows.ravel()[cell]] + within]
    pattern, voter = np.divmod(cell, rows.shape[1])
    width = int(flat.max(initial=0)) + 2
    every = np.arange(len(rows)) * width + _UNNAMED + 1
    keys, line = np.unique(np.concatenate((pattern * width + label + 1, every)), return_inverse=True)
    pattern_of, label_of = np.divmod(keys, width)
    members = np.where(rows[pattern_of] == MISSING, MISSING, _OUT).astype(np.int32)
    members[line[: len(label)], voter] = _IN
    return pattern_of, label_of - 1, members


def _leading_labels(each: Decisions) -> tuple[Bools, Bools]:
    """Of each line, whether the label is in for certain, and whether it may be: decided so, or leading so."""
    row_of = np.repeat(np.arange(len(each.status)), np.diff(each.offsets))
    leads_in, leads_out = (np.zeros(len(each.status), np.bool_) for _ in range(2))
    leads_in[row_of[each.leading == _IN]] = True
    leads_out[row_of[each.leading == _OUT]] = True
    is_decided = each.status == Status.DECIDED
    is_in = each.winner == _IN
    return np.where(is_decided, is_in, leads_in & ~leads_out), np.where(is_decided, is_in, leads_in)


def _by_pattern(each: Decisions, pattern_of: Ints, count: int) -> Decisions:
    """The lines of a pattern as one: the worst status, the least share; what needs the sets is filled in later."""
    first = np.searchsorted(pattern_of, np.arange(count))
    statuses = [Status.TOO_FEW, Status.UNDECIDED, Status.TIED]
    any_of = {status: np.zeros(count, np.bool_) for status in statuses}
    for one, found in any_of.items():
        found[pattern_of[each.status == one]] = True
    status = np.select(list(any_of.values()), statuses, Status.DECIDED).astype(np.int8)
    by = np.maximum.reduceat(each.by, first) if count else each.by
    return replace(
        each,
        status=status,
        by=np.where(status == Status.DECIDED, by, np.int8(By.NOTHING)),
        cast=each.cast[first],
        share=np.minimum.reduceat(each.share, first) if count else each.share,
        margin=np.minimum.reduceat(each.margin, first) if count else each.margin,
        entropy=np.add.reduceat(each.entropy, first) if count else each.entropy,
        confidence=each.confidence[first],
    )


def _named(sets: dict[LabelSet, int], is_in: Bools, pattern_of: Ints, label_of: Ints, wanted: Ints) -> Codes:
    """Of each pattern that is wanted the place of its set of labels that are in; `sets` grows by those it lacks."""
    kept = is_in & (label_of != _UNNAMED)
    labels = label_of[kept].tolist()
    starts = np.searchsorted(pattern_of[kept], wanted).tolist()
    ends = np.searchsorted(pattern_of[kept], wanted, side="right").tolist()
    places = [
        sets.setdefault(tuple(labels[start:end]), len(sets)) for start, end in zip(starts, ends, strict=True)
    ]
    return np.array(places, np.int32)
