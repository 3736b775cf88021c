"""What came out of a scenario, and the figures that it is held against. Arithmetic only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks import ledgers
from benchmarks.ledgers import Call, Limit


@dataclass(frozen=True, slots=True)
class Check:
    """One figure against its bounds. None: it never happened."""

    what: str
    value: float | None
    low: float | None = None
    high: float | None = None

    @property
    def is_met(self) -> bool:
        if self.value is None:
            return False
        return (self.low is None or self.value >= self.low) and (self.high is None or self.value <= self.high)


@dataclass(frozen=True, slots=True)
class Outcome:
    """`share` of the ideal rate, `refused` of all calls; the busiest windows as shares of what the limit allows."""

    rows: int
    answered: int
    share: float
    refused: float
    busiest_second: float
    busiest_minute: float
    checks: tuple[Check, ...] = ()

    @property
    def is_met(self) -> bool:
        return all(check.is_met for check in self.checks)


def windows(amounts: Sequence[tuple[float, float]], rate: float) -> tuple[float, float]:
    """The busiest second and minute, as shares of what `rate` allows in them."""
    return ledgers.busiest(amounts, 1.0) / rate, ledgers.busiest(amounts, 60.0) / (60 * rate)


def window_checks(seen: tuple[float, float], rate: float) -> tuple[Check, ...]:
    """Two in a hundred, or one call where that is less than one."""
    return tuple(
        Check(what, value, high=max(1.02, 1 + 1 / (rate * width_s)) + 1e-9)
        for what, value, width_s in zip(("busiest 1 s", "busiest 60 s"), seen, (1.0, 60.0), strict=True)
    )


def all_answered(answered: int, rows: int) -> Check:
    return Check("answered", answered / rows, low=1.0)


def lane_checks(
    seen: Mapping[str, Sequence[Call]], rates: Mapping[str, float], end_s: float, low: float | None = None
) -> tuple[Check, ...]:
    """Share of each lane against its own limit, from its first call to the end of all."""
    checks = []
    for name, calls in seen.items():
        times = ledgers.accepted_times(calls)
        share = ledgers.share_between(times, Limit.steady(rates[name]), times[0], end_s) if times else 0.0
        checks.append(Check(f"share of {name}", share, low=low))
    return tuple(checks)
