"""One kind of budget of a lane, a minute: told by the job, heard from the provider, taught by refusals. Pure."""

from math import inf

from batchllm.limit.governor import Governor
from batchllm.limit.pace import USED_SHARE

#: A limit is heard anew only if it differs by more than this.
_SAME_LIMIT = 1e-3


class Allowance:
    """What may go is the least of the three; of the first two others may have their shares."""

    __slots__ = ("governor", "heard", "is_distrusted", "told")

    def __init__(self, told: float | None) -> None:
        self.told = told
        self.heard: float | None = None
        self.is_distrusted = False
        self.governor = Governor()

    @property
    def known(self) -> float:
        """Infinite when neither job nor provider say."""
        return min(self.told or inf, self.heard or inf)

    def hear(self, per_minute: float) -> bool:
        """Whether it is another limit than before. One that was raised frees what refusals had taught."""
        before = self.known
        if self.heard is not None and abs(per_minute / self.heard - 1.0) < _SAME_LIMIT:
            return False
        self.heard = per_minute
        if self.known > before:
            self.governor.free()
        return self.known != before

    def distrust(self) -> None:
        """What the provider says of it does not count, from now on."""
        self.heard, self.is_distrusted = None, True

    def per_minute(self, now_s: float, share: float) -> float:
        known = self.known * share
        taught = self.governor.rate(now_s) * 60.0 / USED_SHARE
        if taught > known:
            self.governor.free()  # it came back to what is told or said
        return min(known, taught)

    @property
    def lower_than_told(self) -> float | None:
        """What the provider allows, where that is less than the job says."""
        is_lower = self.told is not None and self.heard is not None and self.heard < self.told
        return self.heard if is_lower else None
