"""Too fast, or too many at once? What refusals that do not say tell of it by the number of calls that were out. Pure.

A provider that limits calls at once refuses when just so many are out, again and again. One that limits the rate
refuses with now more, now fewer of them out. So refusals are counted that come with as many calls out as were ever
taken; one with fewer shows that it was the rate after all, and then it takes four times as many to be believed again.
"""

from batchllm.limit.window import Window

#: Refused so often with as many calls out as ever were, it is the calls at once that are limited.
_SAME_HEIGHT = 4
_HARDER = 4
_LIKELY = 2
#: With fewer calls out than this nothing is said of calls at once.
_FEWEST = 3
#: Refusals at a number that the provider took before; one may be a race of two messages.
_DOUBTS = 1
#: What was taken long ago counts for less with each refusal below it.
_FADING = 0.98


class Crowding:
    """`note_taken` for each call that was let in; `is_shown` for each refusal that does not say what it is about."""

    __slots__ = ("_doubts", "_heights", "_highest", "_needed")

    def __init__(self) -> None:
        self._highest = 0  # calls at once that the provider has taken
        self._heights = 0  # refusals at that height or above
        self._needed = _SAME_HEIGHT
        self._doubts = 0

    def note_taken(self, on_wire: int) -> None:
        self._highest = max(self._highest, on_wire)

    @property
    def is_likely(self) -> bool:
        """Whether it looks like that, and one or two refusals more would show it."""
        return self._heights >= _LIKELY

    def is_shown(self, on_wire: int, window: Window) -> bool:
        """Whether this refusal, with the ones before it, is about calls at once; may take back what was learned."""
        if window.learned is not None:
            return self._is_still(on_wire, window)
        if on_wire < max(self._highest, _FEWEST):
            self._heights = 0
            self._highest = max(1, int(self._highest * _FADING))
            return False
        self._heights += 1
        return self._heights >= self._needed

    def _is_still(self, on_wire: int, window: Window) -> bool:
        if on_wire > window.stands:
            self._doubts = 0
            return True
        if self._doubts < _DOUBTS:
            self._doubts += 1
            return True
        window.forget_learned()
        self._heights = self._doubts = 0
        self._needed *= _HARDER
        return False
