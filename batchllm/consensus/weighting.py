"""How much a voter's vote weighs: as given, or by how often it is right.

A voter that is right with probability a, among n values, has the weight log(a · (n − 1) / (1 − a)): the votes of
independent voters with these weights add up to the log-odds of a value, errors spread evenly over the others (Nitzan
and Paroush 1982, for two values). At chance, a = 1/n, that is 0: no say. Below chance it would count against what was
voted for; that is taken to be no say, too.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from batchllm.consensus.tallies import Floats
from batchllm.consensus.votes import MISSING, Codes, LabelVotes

#: Votes at chance that each voter is taken to have cast beside its own: ten right of ten is not always right.
CHANCE_VOTES = 2.0
#: An accuracy this near to 0 or 1 cannot be told from it.
_SURE = 1e-6


class WeightsError(ValueError):
    """These voters cannot be weighed so; the message says which, and why."""


def given_weights(weights: Mapping[str, float], voters: Sequence[str]) -> list[float]:
    """One for each voter, in their order: by its name, or by that of the lane whose sample it is (`swift#2`).

    Raises WeightsError, with all names at once, for a weight of nobody and a voter without a weight.
    """
    lanes = {voter: voter if voter in weights else voter.rpartition("#")[0] or voter for voter in voters}
    unknown = [name for name in weights if name not in lanes.values()]
    without = [voter for voter, lane in lanes.items() if lane not in weights]
    wrong = [f"weights has {', '.join(unknown)}, of whom there is no vote"] * bool(unknown)
    wrong += [f"weights lacks {', '.join(without)}"] * bool(without)
    if wrong:
        raise WeightsError("; ".join(wrong) + f" (the voters are {', '.join(voters)})")
    return [float(weights[lane]) for lane in lanes.values()]


def weights_from_gold(votes: LabelVotes, gold: Codes) -> list[float]:
    """By accuracy on the rows whose right value is known (`gold`: codes into the votes' values; -1 is not known).

    Each voter's accuracy is smoothed by `CHANCE_VOTES`; who has voted on no such row is at chance. Raises WeightsError
    when nobody has, or nobody is better than chance: there is no weight to decide by.
    """
    values = max(2, len(votes.values))
    known = np.not_equal(gold, MISSING)[:, None] & votes.cast
    right = (known & (votes.codes == gold[:, None])).sum(axis=0)
    seen = known.sum(axis=0)
    if not seen.any():
        raise WeightsError("no vote stands beside a known value (gold): nobody can be weighed by it")
    weights = log_odds((right + CHANCE_VOTES / values) / (seen + CHANCE_VOTES), values)
    if not weights.any():
        raise WeightsError(
            f"on the {int(seen.max())} rows with gold no voter is right more often than by chance"
        )
    return [float(weight) for weight in weights]


def log_odds(accuracies: Floats, values: int) -> Floats:
    """The weights of voters with these accuracies among so many values (2 or more); at least 0, and finite."""
    sure = np.clip(accuracies, _SURE, 1 - _SURE)
    weights: Floats = np.log(sure * (values - 1) / (1 - sure))
    # A voter at chance, to the last bits of a float, is at chance.
    return np.where(weights > 1e-9, weights, 0.0)
