"""Timers that a test moves."""

from collections.abc import Callable


class MovedTimer:
    def __init__(self, when_s: float, act: Callable[[], None]) -> None:
        self.when_s = when_s
        self.act = act
        self.is_over = False

    def cancel(self) -> None:
        self.is_over = True


class MovedTimers:
    """A loop's time and timers. `advance` calls each timer when it is due, `stall` those that are overdue, too late."""

    def __init__(self) -> None:
        self.now_s = 1_000.0
        self.timers: list[MovedTimer] = []

    def time(self) -> float:
        return self.now_s

    def call_at(self, when: float, callback: Callable[[], None], /) -> MovedTimer:
        timer = MovedTimer(when, callback)
        self.timers.append(timer)
        return timer

    @property
    def waiting(self) -> list[MovedTimer]:
        return sorted((timer for timer in self.timers if not timer.is_over), key=lambda timer: timer.when_s)

    def advance(self, seconds: float) -> None:
        end_s = self.now_s + seconds
        while self.waiting and self.waiting[0].when_s <= end_s:
            self.now_s = max(self.now_s, self.waiting[0].when_s)
            self._fire(self.waiting[0])
        self.now_s = end_s

    def stall(self, seconds: float) -> None:
        self.now_s += seconds
        for timer in [timer for timer in self.waiting if timer.when_s <= self.now_s]:
            self._fire(timer)

    def _fire(self, timer: MovedTimer) -> None:
        timer.is_over = True
        timer.act()
