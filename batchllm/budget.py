"""Money that may be spent: reserved before each call, settled after it.

The law: spent + reserved never exceeds the limit, as long as no call costs more than was reserved for it. A call
whose cost stays unknown counts in full, since it may have been paid.

Counted in whole nano-dollars. Floats drift: ten million times 0.1 is not a million, and a limit that is met exactly
must be met, not missed by the last bit. Amounts are rounded up and the limit down, so that rounding never spends.
"""

import math

NANO = 1_000_000_000
#: Differences below a thousandth of a nano-dollar are the dust of float arithmetic (0.1 + 0.2), not money.
DUST = 1e-3


class Budget:
    """What was spent before (`spent_usd`, from the record) counts against the limit from the start."""

    def __init__(self, limit_usd: float, spent_usd: float = 0.0) -> None:
        self._limit = math.floor(_checked(limit_usd) * NANO + DUST)
        self._spent = _cost(spent_usd)
        self._reserved = 0

    @property
    def limit_usd(self) -> float:
        return self._limit / NANO

    @property
    def spent_usd(self) -> float:
        return self._spent / NANO

    @property
    def reserved_usd(self) -> float:
        return self._reserved / NANO

    @property
    def left(self) -> int:
        """Nano-dollars that are not spent; what is reserved is in it."""
        return max(0, self._limit - self._spent)

    @property
    def exhausted(self) -> bool:
        """Nothing is left, whatever calls in flight may give back."""
        return self._spent >= self._limit

    def reserve(self, worst_usd: float) -> bool:
        """Set aside what a call may cost at most; False, and nothing changes, when that is not left."""
        worst = _cost(worst_usd)
        if self._spent + self._reserved + worst > self._limit:
            return False
        self._reserved += worst
        return True

    def could_reserve(self, worst_usd: float) -> bool:
        """Whether it would fit once the calls in flight gave everything back: if not, waiting is no use."""
        return self._spent + _cost(worst_usd) <= self._limit

    def settle(self, reserved_usd: float, actual_usd: float | None) -> None:
        """Give a reservation back and count what the call cost; None is unknown and counts as all of it.

        A call that cost more than was reserved is counted as it is: the record tells the truth, and nothing more is
        reserved once the limit is passed.
        """
        reserved = _cost(reserved_usd)
        if reserved > self._reserved:
            raise ValueError(f"settling {reserved_usd} USD, of which only {self.reserved_usd} are reserved")
        spent = reserved if actual_usd is None else _cost(actual_usd)
        self._reserved -= reserved
        self._spent += spent


def _cost(usd: float) -> int:
    """Nano-dollars, rounded up."""
    return math.ceil(_checked(usd) * NANO - DUST)


def _checked(usd: float) -> float:
    if not math.isfinite(usd) or usd < 0:
        raise ValueError(f"not an amount of money: {usd}")
    return usd
