"""Calls in flight of one lane: how many there may be, and one waiter that sleeps on an event, never polls.

Where the rate is known the rate governs, and in-flight follows it by itself (rate times latency): the window is then
as large as it may be, so that neither a slow provider nor calls that hang cost any rate. Where nothing is known, the
window is what feels its way: it starts small and grows by one for each answer, which doubles it with each latency,
as long as it was full; beyond what is usual for the provider it goes on growing only while that brings more answers.
A provider that refuses what is too much at once shows how much that is.

A place is held until what the call brought is safe; the provider's own count knows of calls on the wire only.
"""

import asyncio

#: Calls at once before the first answer has come.
FIRST_CALLS = 4
#: Nothing is heard, and a refusal would come at once: half as many more each half second, up to what is usual.
_CREEP_S = 0.5
_CREEP_GROWTH = 1.5
#: Calls that hang hold all the places that were learned: so often one more is tried.
_STUCK_S = 10.0
#: A learned number is held so long, then tried one above; doubled each time that it proves to stand.
_HELD_S = 2.0
_LONGEST_HOLD_S = 64.0
#: Growth beyond what is usual: a quarter more must bring at least a twelfth more answers, or it is taken back.
_TRIAL_GROWTH = 1.25
_TRIAL_GAIN = 1.08
_TRIAL_S = 2.0
_TRIAL_ROUNDS = 3  # answers of so many full windows: what was sent before the growth says nothing of it
_TRIAL_PAUSE_S = 30.0


class Window:
    """`most`: never more. `usual`: as many without asking whether they bring anything."""

    __slots__ = (
        "_answers",
        "_before",
        "_creeper",
        "_held_s",
        "_hold_until_s",
        "_is_full",
        "_room",
        "_trial_s",
        "in_flight",
        "learned",
        "most",
        "on_wire",
        "size",
        "stands",
        "usual",
    )

    def __init__(self, most: int, *, usual: int | None = None, first: int | None = None) -> None:
        self.most = most
        self.usual = most if usual is None else min(usual, most)
        self.size = most if first is None else min(first, most)
        self.learned: int | None = None  # what may be on the wire, as the provider's refusals showed
        self.stands = 0  # what it took when it last refused; `learned` tries more from time to time
        self.in_flight = 0
        self.on_wire = 0
        self._creeper: asyncio.TimerHandle | None = None
        self._room = asyncio.Event()
        self._is_full = False
        self._held_s = _HELD_S
        self._hold_until_s = 0.0
        self._trial_s: float | None = None
        self._answers = 0
        self._before = 0.0

    @property
    def has_room(self) -> bool:
        if self.in_flight < self.size and (self.learned is None or self.on_wire < self.learned):
            return True
        self._is_full = True
        return False

    def enter(self) -> None:
        self.in_flight += 1
        self.on_wire += 1

    def land(self) -> None:
        """The call is back; its place is held on."""
        self.on_wire -= 1
        if self.learned is not None:
            self._room.set()

    def leave(self) -> None:
        self.in_flight -= 1
        self._room.set()

    async def room(self) -> None:
        """Return when another call may go."""
        while not self.has_room:
            await self.change()

    async def change(self) -> None:
        """Return after the next call has left, or the window has grown."""
        self._room.clear()
        if self._creeper is None:
            self._creep_later()
        await self._room.wait()

    def close(self) -> None:
        if self._creeper is not None:
            self._creeper.cancel()

    def open_up(self) -> None:
        """The rate is known and governs."""
        self._open(self.most)

    def start_over(self) -> None:
        """What was known of the rate is known no more."""
        self.size = min(self.size, max(FIRST_CALLS, self.on_wire))
        self._is_full = False

    def widen(self) -> None:
        """Tokens are limited, and they govern; how many requests they may come in is felt for."""
        self.usual = self.most

    def note_answer(self, now_s: float) -> None:
        """The provider took the call in. What is full grows."""
        if self.learned is not None:
            self._raise_learned(now_s)
        if self.size < self.usual:
            if self._is_full:
                self._open(self.size + 1)
        elif self.size < self.most and self.learned is None:
            self._try_more(now_s)

    def note_refused(self, on_wire: int, now_s: float, *, told: int | None = None) -> None:
        """So many calls at once were too many; `told` is the limit if the refusal names it."""
        stands = max(1, on_wire - 1) if told is None else max(1, min(told, self.most))
        is_same = self.learned is not None and stands >= self.stands
        self._held_s = min(_LONGEST_HOLD_S, self._held_s * 2) if is_same else _HELD_S
        self.size = max(self.size, self.usual)  # what was learned holds it back now
        self.learned = self.stands = stands if self.learned is None else min(stands, self.learned)
        self._hold_until_s = now_s + self._held_s

    def forget_learned(self) -> None:
        """It was not the number of calls at once that was refused."""
        self.learned = None
        self._room.set()

    def _creep_later(self) -> None:
        loop = asyncio.get_running_loop()
        if self.learned is not None and self.on_wire >= self.learned:
            self._creeper = loop.call_later(_STUCK_S, self._creep, self.learned)
        elif self.size < self.usual and self.in_flight >= self.size:
            self._creeper = loop.call_later(_CREEP_S, self._creep, None)

    def _creep(self, learned: int | None) -> None:
        """Nothing came back meanwhile, neither an answer nor a refusal."""
        self._creeper = None
        if learned is not None:
            if self.learned == learned and self.on_wire >= learned:
                self.learned = min(self.most, learned + 1)
                self._room.set()
        elif self.size < self.usual and self.in_flight >= self.size:
            self._open(min(self.usual, int(self.size * _CREEP_GROWTH) + 1))
        self._room.set()  # who waits looks again, and sets the next timer where it must wait on

    def _raise_learned(self, now_s: float) -> None:
        if self._is_full and self.learned is not None and now_s >= self._hold_until_s:
            self.learned = min(self.most, self.learned + max(1, self.learned // 16))
            self._hold_until_s = now_s + _HELD_S / 4
            self._is_full = False
            self._room.set()

    def _open(self, size: int) -> None:
        if size != self.size:
            self.size = min(size, self.most)
            self._is_full = False
            self._room.set()

    def _try_more(self, now_s: float) -> None:
        """A quarter more for two seconds; kept when it brings answers."""
        self._answers += 1
        if self._trial_s is None:
            self._trial_s, self._answers = now_s, 0
        elapsed_s = now_s - self._trial_s
        if elapsed_s < _TRIAL_S or self._answers < _TRIAL_ROUNDS * self.size:
            return
        rate = self._answers / elapsed_s
        if not self._is_full:
            self._trial_s = None
        elif rate >= self._before * _TRIAL_GAIN:
            self._before = rate
            self._trial_s, self._answers = now_s, 0
            self._open(int(self.size * _TRIAL_GROWTH) + 1)
        else:
            self._before = rate / _TRIAL_GAIN  # the limit may have moved when it is tried again
            self._trial_s, self._answers = now_s + _TRIAL_PAUSE_S, 0
            self._open(max(self.usual, int(self.size / _TRIAL_GROWTH)))
