"""Rows whose answers are votes, asked no further than the vote needs.

First the fewest voters are asked that could settle it, in their order; once all of these are heard, the next ones while
it is open. A voter that fails, or whose lane is dead, brings in the next one. What is left when the vote is settled
is skipped, which is put down with the outcome that settled it, so that no commit has the one without the other.

A voter whose lane has died may still answer in a later run. It counts as one that is yet to come, and the row is left
open if the others do not settle it.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from batchllm.ballot import Votes
from batchllm.dispatch.lane import Lane
from batchllm.dispatch.work import Work
from batchllm.events import RunStats
from batchllm.fallback import LaneState
from batchllm.records import AnswerValue, JournalRecord, Request, RowSkipped


@dataclass(frozen=True, slots=True)
class Polling:
    """How rows are polled. A voter is a slot: a lane, or one of its samples, or one of the samples that any lane gives.

    `ballot` makes an empty one. `vote_of` reads an answer: None where it is no vote. `heard` tells of a row which
    slots have their outcome already, each with its vote.
    """

    slots: int
    samples: int
    ballot: Callable[[], Votes]
    vote_of: Callable[[AnswerValue], object | None]
    heard: Callable[[int], Sequence[tuple[int, object | None]]]


class Poll:
    """One row while it is asked. `queue` are the slots not asked yet, `lost` those whose lanes are dead."""

    __slots__ = ("ballot", "lost", "outstanding", "queue", "request")

    def __init__(self, request: Request, ballot: Votes, queue: Sequence[int]) -> None:
        self.request = request
        self.ballot = ballot
        self.queue = deque(queue)
        self.lost: list[int] = []
        self.outstanding = 0


class Polls:
    """`add` takes what is to be asked next; `owe` hears of each answer that a dead lane leaves open.

    What the methods return is to be put down together with the outcome that they are told of.
    """

    def __init__(
        self,
        polling: Polling,
        lanes: Sequence[Lane],
        stats: RunStats,
        *,
        add: Callable[[Work], None],
        owe: Callable[[int], None],
    ) -> None:
        self._polling = polling
        self._lanes = lanes
        self._stats = stats
        self._add = add
        self._owe = owe
        self._is_pinned = polling.slots > polling.samples

    def begin(self, request: Request) -> Sequence[JournalRecord]:
        """Ask about a row; what the record has of it counts."""
        ballot = self._polling.ballot()
        heard = self._polling.heard(request.rows[0].ordinal)
        for slot, vote in heard:
            ballot.note(slot, vote)
        known = {slot for slot, _ in heard}
        poll = Poll(request, ballot, [slot for slot in range(self._polling.slots) if slot not in known])
        return self._advance(poll)

    def hear(self, work: Work, answer: AnswerValue) -> Sequence[JournalRecord]:
        return self._note(work, self._read(answer))

    def fail(self, work: Work) -> Sequence[JournalRecord]:
        """It was given up: no vote will come."""
        return self._note(work, None)

    def lose(self, work: Work) -> Sequence[JournalRecord]:
        """Its lane is dead: in this run no vote will come."""
        poll = _poll_of(work)
        poll.outstanding -= 1
        poll.lost.append(self._slot(work))
        return self._advance(poll)

    def _note(self, work: Work, vote: object | None) -> Sequence[JournalRecord]:
        poll = _poll_of(work)
        poll.outstanding -= 1
        poll.ballot.note(self._slot(work), vote)
        return self._advance(poll)

    def _advance(self, poll: Poll) -> Sequence[JournalRecord]:
        if poll.outstanding:
            return ()
        if poll.ballot.is_settled:
            return self._skipped(poll)
        wanted = poll.ballot.least_to_ask()
        while poll.queue and poll.outstanding < wanted:
            self._ask(poll, poll.queue.popleft())
        if not poll.outstanding:
            for slot in poll.lost:
                self._owe(slot // self._polling.samples)
        return ()

    def _ask(self, poll: Poll, slot: int) -> None:
        lane, sample = divmod(slot, self._polling.samples)
        if self._is_pinned and self._lanes[lane].health.state is LaneState.DEAD:
            poll.lost.append(slot)
            return
        work = Work(poll.request, lane if self._is_pinned else None, sample)
        work.poll = poll
        poll.outstanding += 1
        self._add(work)

    def _skipped(self, poll: Poll) -> Sequence[JournalRecord]:
        slots = (*sorted((*poll.queue, *poll.lost)),)
        if not slots:
            return ()
        self._stats.skipped += len(slots)
        return (RowSkipped(poll.request.rows[0], slots, poll.request.digests[0]),)

    def _read(self, answer: AnswerValue) -> object | None:
        try:
            return self._polling.vote_of(answer)
        except Exception:  # noqa: BLE001 - the answer is paid for and is kept; that it cannot be read costs a call more
            return None

    def _slot(self, work: Work) -> int:
        return work.sample if work.pinned is None else work.pinned * self._polling.samples + work.sample


def _poll_of(work: Work) -> Poll:
    if not isinstance(work.poll, Poll):
        raise TypeError("only a request that was polled for is told of here")
    return work.poll
