"""Votes → what each row is, and how good that is. Pure: from a poll and a section to a table's lines and figures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import orjson

from batchllm.consensus.bootstrap import Resampling
from batchllm.consensus.dawid_skene import Estimate, estimate
from batchllm.consensus.label_sets import SetDecisions, SetVotes, break_set_ties, decide_sets
from batchllm.consensus.measures import Told, measure
from batchllm.consensus.measures import Voter as Measured
from batchllm.consensus.motion import Motion, lane_of, settings_of
from batchllm.consensus.normalising import Whys, set_text
from batchllm.consensus.poll import Poll, State, States, Voter
from batchllm.consensus.rules import By, Decisions, Status, break_ties, decide, overrule
from batchllm.consensus.table import Outcome
from batchllm.consensus.votes import MISSING, Codes, LabelVotes, Numbers, NumberVotes
from batchllm.consensus.weighting import WeightsError, given_weights, weights_from_gold
from batchllm.errors import SettingsError


@dataclass(frozen=True, slots=True)
class Late:
    """One more voter, asked where the others left a row open. `cells`: its votes, of the poll's kind.

    `overrules`: its vote decides whether or not it is for a value that leads. `row_usd`: what asking it cost, 0 where
    it was not asked; NaN where that is not known.
    """

    voter: Voter
    cells: Codes | Numbers
    states: npt.NDArray[np.uint8]
    reasons: Sequence[str]
    whys: npt.NDArray[np.int16]
    row_usd: npt.NDArray[np.float64]
    by: By
    overrules: bool = False


@dataclass(frozen=True, slots=True)
class Facts:
    """What stands beside what is measured. `usd`: all that was spent; None: not known."""

    created: str
    usd: float | None = None
    calls: Mapping[str, object] | None = None
    judge: Mapping[str, object] | None = None


@dataclass(frozen=True, slots=True)
class Weighed:
    """Who has how much say. `weights` None: all the same; `why`: what is to be said against them."""

    weights: tuple[float, ...] | None = None
    estimate: Estimate | None = None
    why: str = ""


def weigh(poll: Poll, motion: Motion) -> Weighed:
    """Raises SettingsError for weights that cannot be had."""
    wanted = motion.section.weights
    try:
        if isinstance(wanted, Mapping):
            return Weighed(tuple(given_weights(wanted, poll.votes.voters)))
        if wanted is None or not isinstance(poll.votes, LabelVotes):
            return Weighed()
        if wanted == "gold":
            gold = poll.gold.values if poll.gold is not None else np.full(poll.rows, MISSING, np.int32)
            return Weighed(tuple(weights_from_gold(poll.votes, np.maximum(gold, MISSING).astype(np.int32))))
    except WeightsError as error:
        raise SettingsError(
            f"consensus.weights: {error}", remedy="weigh by name, or take a rule without weights"
        ) from None
    lanes = [voter.lane or lane_of(voter.name) for voter in poll.voters]
    found = estimate(poll.votes, [lanes.index(lane) for lane in lanes])
    return Weighed(found.weights, found, found.why)


@dataclass(frozen=True, slots=True)
class Decided:
    """`poll` has the values of which `decisions` holds codes: sets of labels may be such as nobody voted for."""

    poll: Poll
    decisions: Decisions
    weighed: Weighed


def decided(poll: Poll, motion: Motion, weighed: Weighed) -> Decided:
    """By the rule alone. A row whose votes may still come is pending."""
    votes = poll.votes
    if poll.kind == "labels" and isinstance(votes, LabelVotes):
        found = decide_sets(sets_of(votes), motion.terms, weighed.weights)
        poll, made = _with_sets(poll, found), found.decisions
    else:
        made = decide(votes, motion.terms, weighed.estimate or weighed.weights)
    waits = (poll.states == State.OPEN).any(axis=1)
    if waits.any():
        made = replace(
            made,
            status=np.where(waits, np.int8(Status.PENDING), made.status),
            winner=_blanked(poll, made.winner, waits),
            by=np.where(waits, np.int8(By.NOTHING), made.by),
            confidence=np.where(waits, np.nan, made.confidence),
        )
    return Decided(poll, made, weighed)


def settled(before: Decided, late: Sequence[Late]) -> Decided:
    """With the votes of those asked for open rows, one after the other."""
    poll, made = before.poll, before.decisions
    for one in late:
        poll = _with(poll, one)
        if one.overrules:
            made = overrule(made, _blanked(poll, one.cells, made.status == Status.PENDING), one.by)
        elif poll.kind == "labels" and isinstance(poll.votes, LabelVotes):
            sets = sets_of(poll.votes).sets
            found = break_set_ties(SetDecisions(sets, made), one.cells.astype(np.int32), one.by)
            poll, made = _with_sets(poll, found), found.decisions
        else:
            made = break_ties(made, one.cells, one.by)
    return Decided(poll, made, before.weighed)


def open_rows(poll: Poll, made: Decisions) -> npt.NDArray[np.bool_]:
    """Rows that another vote may settle."""
    return made.is_open & poll.votes.cast.any(axis=1)


def different_rows(poll: Poll, made: Decisions) -> npt.NDArray[np.bool_]:
    """Rows in which not all votes are the same, and none may still come: what there is to judge."""
    if isinstance(poll.votes, LabelVotes):
        low = np.where(poll.votes.cast, poll.votes.codes, np.iinfo(np.int32).max).min(axis=1)
        high = poll.votes.codes.max(axis=1)
        differ = (high > MISSING) & (low < high)
    else:
        low = np.where(poll.votes.cast, poll.votes.numbers, np.inf).min(axis=1)
        high = np.where(poll.votes.cast, poll.votes.numbers, -np.inf).max(axis=1)
        differ = low < high
    return np.asarray(differ & (made.status != Status.PENDING))


def figures(outcome: Outcome, motion: Motion, weighed: Weighed, facts: Facts) -> dict[str, object]:
    """The dictionary of agreement.json."""
    poll, made = outcome.poll, outcome.decisions
    weights = weighed.weights or ()
    voters = [
        Measured(
            voter.lane or voter.name,
            voter.cost_usd,
            _latency(voter),
            weights[at] if at < len(weights) else None,
            is_late=at >= poll.votes_wanted,
            not_asked=int((poll.states[:, at] == State.NOT_ASKED).sum()),
        )
        for at, voter in enumerate(poll.voters)
    ]
    counts = {status.name.lower(): int(np.count_nonzero(made.status == status)) for status in Status}
    told = Told(
        created=facts.created,
        settings=settings_of(motion),
        counts=counts,
        voters=voters,
        cost_usd=facts.usd,
        calls=facts.calls,
        judge=facts.judge,
        dawid_skene=None if weighed.estimate is None else _told(weighed.estimate, poll),
    )
    resampling = Resampling(motion.section.resamples, motion.section.seed)
    gold = None if poll.gold is None else poll.gold.values
    return measure(poll.votes, made.winner, gold, motion.scale, told, resampling)


def sets_of(votes: LabelVotes) -> SetVotes:
    """Sets that are values as JSON text, by the places of their labels."""
    sets = [orjson.loads(text) for text in votes.values]
    labels = sorted({label for labels in sets for label in labels})
    place = {label: at for at, label in enumerate(labels)}
    made = tuple(tuple(sorted(place[label] for label in one)) for one in sets)
    return SetVotes(votes.voters, tuple(labels), made, votes.codes)


def _with_sets(poll: Poll, found: SetDecisions) -> Poll:
    if not isinstance(poll.votes, LabelVotes):
        return poll
    labels = sets_of(poll.votes).labels
    new = found.sets[len(poll.votes.values) :]
    values = (*poll.votes.values, *(set_text([labels[at] for at in one]) for one in new))
    return replace(poll, votes=LabelVotes(poll.votes.voters, values, poll.votes.codes))


def _blanked(poll: Poll, cells: Codes | Numbers, where: npt.NDArray[np.bool_]) -> Codes | Numbers:
    """The same codes or numbers, and none in these rows."""
    blanked = cells.copy()
    blanked[where] = MISSING if isinstance(poll.votes, LabelVotes) else np.nan
    return blanked


def _with(poll: Poll, late: Late) -> Poll:
    names = (*poll.votes.voters, late.voter.name)
    votes: LabelVotes | NumberVotes
    if isinstance(poll.votes, LabelVotes):
        codes = np.column_stack([poll.votes.codes, late.cells.astype(np.int32)])
        votes = LabelVotes(names, poll.votes.values, codes)
    else:
        votes = NumberVotes(names, np.column_stack([poll.votes.numbers, late.cells]))
    states: States = np.column_stack([poll.states, late.states])
    shifted = np.where(late.whys > 0, late.whys + np.int16(len(poll.reasons)), 0)
    whys: Whys = np.column_stack([poll.whys, shifted.astype(np.int16)])
    reasons = (*poll.reasons, *late.reasons)
    return replace(
        poll,
        votes=votes,
        voters=(*poll.voters, late.voter),
        states=states,
        whys=whys,
        reasons=reasons,
        row_usd=poll.row_usd + late.row_usd,
        late=poll.late + 1,
    )


def _latency(voter: Voter) -> dict[str, float | None] | None:
    if voter.latency_ms is None or not len(voter.latency_ms):
        return None
    p50, p95 = np.percentile(voter.latency_ms, [50, 95])
    return {"p50": float(p50), "p95": float(p95)}


def _told(found: Estimate, poll: Poll) -> dict[str, object]:
    """An estimate as agreement.json keeps it."""
    names = poll.votes.voters
    rates = found.error_rates
    return {
        "model": found.model,
        "labels": list(found.values),
        "prior": found.prior,
        "accuracy": dict(zip(names, found.accuracy.tolist(), strict=False)),
        "error_rates": None
        if rates is None
        else {name: rates[at] for at, name in enumerate(names[: len(rates)])},
        "iterations": found.iterations,
        "converged": found.converged,
        "why": found.why or None,
    }
