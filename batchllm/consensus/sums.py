"""Statistics that are smooth functions of totals over the rows: means, ratios, errors, correlations."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from batchllm.consensus.patterns import Floats

#: Of a total's own size: small against its curvature, large against its rounding.
_STEP = 1e-5


@dataclass(frozen=True, slots=True)
class Sums:
    """A smooth function of totals over the rows.

    `features`: totals × patterns, what one row of each pattern adds. `value`: totals × resamples → one value each.
    """

    features: Floats
    counts: Floats
    value: Callable[[Floats], Floats]
    bounds: tuple[float, float] = (-math.inf, math.inf)
    is_mean: bool = False

    def at(self, counts: Floats) -> Floats:
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            return self.value((counts @ self.features.T).T)

    def variance(self) -> float:
        """As of slopes that are the features times the value's gradient, which comes from differences."""
        totals, n = self.features @ self.counts, float(self.counts.sum())
        is_single = bool((self.counts == 1).all())  # rows as they are: a weighting less
        products = (self.features if is_single else self.features * self.counts) @ self.features.T
        sizes = np.sqrt(n * np.diagonal(products))
        steps = np.diag(np.where(sizes > 0, sizes, 1.0) * _STEP)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            moved = self.value(totals[:, None] + steps) - self.value(totals[:, None] - steps)
            gradient = moved / (2 * np.diagonal(steps))
            found = float(gradient @ products @ gradient - (gradient @ totals) ** 2 / n)
        return max(0.0, found) if math.isfinite(found) else found


def ratio(parts: Floats, wholes: Floats, counts: Floats, bounds: tuple[float, float]) -> Sums:
    """The total of `parts` over that of `wholes`."""
    return Sums(np.stack([parts, wholes]), counts, lambda totals: totals[0] / totals[1], bounds, is_mean=True)


def centred(numbers: Floats) -> Floats:
    """Moved and scaled into -2 to 2 around their mean, so that squares neither overflow nor cancel; NaN stays.

    Numbers that are all the same become zeros.
    """
    known = numbers[~np.isnan(numbers)]
    low, high = known.min(initial=np.inf), known.max(initial=-np.inf)
    if not low < high:
        return numbers * 0.0
    unit = max(-low, high)
    mean = (known / unit).mean()
    moved: Floats = numbers / unit
    moved -= mean
    moved /= max(mean - low / unit, high / unit - mean)
    return moved
