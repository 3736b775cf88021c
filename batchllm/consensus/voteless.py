"""A column in which nothing is a vote: another kind, column, list of labels or template was meant."""

import numpy as np

from batchllm.consensus.motion import Motion
from batchllm.consensus.normalising import NO_VALUE
from batchllm.consensus.poll import Poll, State


def is_voteless(poll: Poll) -> bool:
    """Whether there are values, and none of them could be read as a vote."""
    if poll.kind == "vector" or poll.votes.cast.any():
        return False
    said = poll.states == State.UNREADABLE
    if NO_VALUE in poll.reasons:
        said &= poll.whys != poll.reasons.index(NO_VALUE)
    return bool(np.any(said))


def voteless(motion: Motion, found: str) -> tuple[str, str]:
    """What is wrong, and what to do. `found`: what it holds instead."""
    section = motion.section
    settings = [
        name
        for name, is_said in (
            ("labels", section.labels is not None),
            ("normalise", section.normalise is not None),
            ("kind", section.kind is not None),
        )
        if is_said
    ]
    mended = " or ".join(f"consensus.{name}" for name in settings)
    remedy = "name another column in consensus.over"
    return (
        f"the column {motion.over!r} holds no {motion.kind} votes: {found}",
        f"mend {mended}, or {remedy}" if mended else remedy,
    )
