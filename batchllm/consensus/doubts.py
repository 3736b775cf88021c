"""What looks wrong in votes although each of them can be read. Told in notes: the figures alone would not show it."""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import orjson

from batchllm.consensus.motion import Motion
from batchllm.consensus.poll import Poll, State
from batchllm.consensus.votes import MISSING, LabelVotes

Codes = npt.NDArray[np.int64] | npt.NDArray[np.int32]

#: Values of which each is looked at; more of them are free text.
_MOST_VALUES = 100_000
#: Two voters may well be of opposite opinions throughout; they cannot be so of three values.
_OPINIONS = 3
_SHOWN = 3
_SHOWN_CHARS = 40


def doubts(poll: Poll, motion: Motion) -> list[str]:
    """Of the votes as they were cast, before anybody was asked about open rows."""
    return [*_silent(poll), *_of_labels(poll, motion)]


def _silent(poll: Poll) -> Iterator[str]:
    """Voters that were asked, or have lines of their own, and no vote anywhere."""
    is_wanted = (poll.states != State.NOT_ASKED).any(axis=0) & (poll.states != State.OPEN).any(axis=0)
    silent = is_wanted & ~poll.votes.cast.any(axis=0)
    names = [voter.name for voter, is_silent in zip(poll.voters, silent, strict=True) if is_silent]
    if names and poll.votes.cast.any():  # that nobody has is told elsewhere, with what is there instead
        yield f"{_listed(names)} {'has' if len(names) == 1 else 'have'} no vote on any row"


def _of_labels(poll: Poll, motion: Motion) -> Iterator[str]:
    """Labels that the job names are known to be the same ones for all."""
    votes = poll.votes
    if not isinstance(votes, LabelVotes) or poll.kind in ("vector", "boolean"):
        return
    voted = [np.unique(column[column != MISSING]) for column in votes.codes.T]
    met = np.unique(np.concatenate(voted)) if voted else np.empty(0, np.int32)
    if not motion.labels:
        yield from _strangers(votes, voted, met)
        yield from _lookalikes(poll, votes, met)
    yield from _unvoted_gold(poll, votes, motion, met)


def _strangers(votes: LabelVotes, voted: Sequence[Codes], met: Codes) -> Iterator[str]:
    """A voter none of whose values anybody else gives; two values alone may be two opinions."""
    givers = np.zeros(len(votes.values), np.int64)
    for own in voted:
        givers[own] += 1
    strange = [at for at, own in enumerate(voted) if len(own) and (givers[own] == 1).all()]
    speaking = sum(bool(len(own)) for own in voted)
    if not strange or speaking < 2 or len(met) < _OPINIONS:
        return
    told = [f"{votes.voters[at]} ({_values(votes, voted[at])})" for at in strange[:_SHOWN]]
    if speaking == 2:
        said = f"{' and '.join(told)} have no value in common"
    elif len(strange) == speaking:
        said = "no two voters give the same value anywhere"
    else:
        said = "; ".join(f"{one} gives no value that another voter gives" for one in told)
    yield f"{said}; normalise may make the same what is meant to be"


def _lookalikes(poll: Poll, votes: LabelVotes, met: Codes) -> Iterator[str]:
    """Values that differ in case, or in space at their ends, alone."""
    if len(met) > _MOST_VALUES:
        return
    texts = [votes.values[at] for at in met.tolist()]
    if poll.kind == "labels":
        texts = sorted({label for text in texts for label in orjson.loads(text)})
    alike: dict[str, list[str]] = {}
    for text in texts:
        alike.setdefault(text.strip().lower(), []).append(text)
    several = [group for group in alike.values() if len(group) > 1]
    if several:
        more = f", and {len(several) - 1:,} more such" if len(several) > 1 else ""
        yield (
            f"{' and '.join(map(_shown, several[0][:_SHOWN]))} are different values{more}; normalise:"
            ' "{{ value | trim | lower }}" makes the same of them'
        )


def _unvoted_gold(poll: Poll, votes: LabelVotes, motion: Motion, met: Codes) -> Iterator[str]:
    """Right values that nobody gives, as far as votes are not free text, where that is usual."""
    if poll.gold is None:
        return
    known = poll.gold.values[poll.gold.values >= 0].astype(np.int64)
    is_met = np.zeros(len(votes.values), np.bool_)
    is_met[met] = True
    unvoted = known[~is_met[known]]
    if not len(unvoted) or not len(met):
        return
    values = _values(votes, np.unique(unvoted))
    if len(unvoted) == len(known):
        yield f"gold: nobody votes for any of its values ({values}; votes are {_values(votes, met)})"
    elif not motion.labels and poll.kind != "text":
        are = "value is one" if len(unvoted) == 1 else "values are ones"
        yield f"gold: {len(unvoted):,} {are} that nobody votes for: {values}"


def _values(votes: LabelVotes, codes: Codes) -> str:
    shown = ", ".join(_shown(votes.values[at]) for at in codes[:_SHOWN].tolist())
    return shown + (", …" if len(codes) > _SHOWN else "")


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN_CHARS else f"{text[: _SHOWN_CHARS - 1]}…")


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
