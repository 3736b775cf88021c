"""Rows whose answers are votes: nobody is asked whose vote changes nothing, and nothing is settled twice or never."""

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import dispatch_rig as rig
import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from batchllm.ballot import Ballot, Roll, Terms
from batchllm.dispatch import Ending, Polling
from batchllm.errors import ExitCode
from batchllm.records import Failure, JournalRecord, Response, RowDone, RowFailed, RowSkipped
from batchllm.testing import MemoryRecorder, ScriptedProvider, run_virtual, text_request

Heard = Mapping[int, Sequence[tuple[int, object | None]]]


class Puts(MemoryRecorder):
    """Remembers what came together."""

    def __init__(self) -> None:
        super().__init__()
        self.together: list[list[JournalRecord]] = []

    def put(self, records: Sequence[JournalRecord]) -> None:
        self.together.append(list(records))
        super().put(records)

    @property
    def skipped(self) -> list[tuple[int, tuple[int, ...]]]:
        return [(one.row.ordinal, one.slots) for one in self.records if isinstance(one, RowSkipped)]


def says(*votes: str | Failure) -> ScriptedProvider:
    """Its vote on each row, by the row's number; the last one goes on."""

    def script(body: Mapping[str, Any], _call: int) -> Response | Failure:
        row = int(str(body["content"]).split()[1])
        vote = votes[min(row, len(votes) - 1)]
        return vote if isinstance(vote, Failure) else Response(200, {}, orjson.dumps({"content": vote}), 0.0)

    return ScriptedProvider(script, latency_s=0.1)


def majority(
    slots: int,
    *,
    samples: int = 1,
    heard: Heard | None = None,
    vote_of: Callable[[Any], object | None] = lambda answer: answer,
) -> Polling:
    roll = Roll(Terms("majority", slots, slots // 2 + 1))
    return Polling(slots, samples, lambda: Ballot(roll), vote_of, lambda row: (heard or {}).get(row, ()))


def poll(
    *providers: ScriptedProvider, rows: int = 1, polling: Polling | None = None, **more: Any
) -> tuple[rig.Rig, Puts, Ending]:
    recorder = Puts()

    async def main() -> tuple[rig.Rig, Ending]:
        made = rig.Rig(*providers, recorder=recorder, polling=polling or majority(len(providers)), **more)
        return made, await made.run([text_request(row, f"row {row}") for row in range(rows)])

    made, ending = run_virtual(main())
    return made, recorder, ending


def asked(made: rig.Rig) -> list[int]:
    return [len(provider.bodies) for provider in made.providers]


def test_two_that_agree_settle_it_and_the_third_is_not_asked() -> None:
    made, recorder, ending = poll(says("a"), says("a"), says("b"), rows=20)
    assert (asked(made), ending.code) == ([20, 20, 0], ExitCode.OK)
    assert sorted(recorder.skipped) == [(row, (2,)) for row in range(20)]
    assert (made.stats.ok, made.stats.skipped) == (40, 20)


def test_what_is_skipped_is_put_down_with_the_answer_that_settled_it() -> None:
    _, recorder, _ = poll(says("a"), says("a"), says("b"))
    last = recorder.together[-1]
    assert [type(record) for record in last[-2:]] == [RowDone, RowSkipped]
    assert not any(isinstance(record, RowSkipped) for batch in recorder.together[:-1] for record in batch)


def test_the_third_is_asked_where_the_first_two_differ() -> None:
    made, recorder, _ = poll(says("a", "b"), says("a"), says("b"), rows=2)
    assert asked(made) == [2, 2, 1]
    assert recorder.skipped == [(0, (2,))]
    assert [body["content"] for body in made.providers[2].bodies] == ["row 1"]


def test_a_voter_that_fails_brings_in_the_next_one() -> None:
    made, recorder, ending = poll(says(rig.INVALID), says("a"), says("a"))
    assert (asked(made), ending.code) == ([1, 1, 1], ExitCode.OK)
    assert (recorder.skipped, len(recorder.failed), len(recorder.done)) == ([], 1, 2)


def test_an_answer_that_is_no_vote_brings_in_the_next_one() -> None:
    made, recorder, _ = poll(
        says("?"),
        says("a"),
        says("a"),
        polling=majority(3, vote_of=lambda answer: None if answer == "?" else answer),
    )
    assert (asked(made), recorder.skipped) == ([1, 1, 1], [])


def test_a_vote_that_cannot_be_read_costs_neither_its_answer_nor_the_run() -> None:
    def broken(_answer: object) -> object:
        raise ZeroDivisionError

    made, recorder, ending = poll(says("a"), says("a"), says("a"), polling=majority(3, vote_of=broken))
    assert (asked(made), len(recorder.done), ending.code) == ([1, 1, 0], 2, ExitCode.OK)
    assert recorder.skipped == [(0, (2,))]  # two of three without a vote: a third would decide nothing


def test_where_no_two_can_agree_any_more_nobody_else_is_asked() -> None:
    """Five voters; three of them failed, and two are fewer than are needed."""
    made, recorder, _ = poll(says(rig.INVALID), says(rig.INVALID), says(rig.INVALID), says("a"), says("a"))
    assert asked(made) == [1, 1, 1, 0, 0]
    assert recorder.skipped == [(0, (3, 4))]


def test_a_dead_lane_brings_in_the_next_one_and_is_not_missed_where_the_others_agree() -> None:
    made, recorder, ending = poll(says(rig.BAD_KEY), says("a"), says("a"), rows=10)
    assert (asked(made)[1:], ending.code) == ([10, 10], ExitCode.OK)
    assert sorted(recorder.skipped) == [(row, (0,)) for row in range(10)]
    assert (made.dispatcher.owed, recorder.failed) == (0, [])


def test_a_dead_lane_whose_vote_would_decide_leaves_the_row_open() -> None:
    made, recorder, ending = poll(says(rig.BAD_KEY), says("a"), says("a", "b", "a"), rows=3)
    assert ending.code is ExitCode.NO_PERMISSION
    assert sorted(recorder.skipped) == [(0, (0,)), (2, (0,))]
    assert made.dispatcher.owed == 1
    assert recorder.failed == []


def test_votes_that_the_record_holds_settle_a_row_without_a_call() -> None:
    heard = {0: [(0, "a"), (2, "a")], 1: [(0, "a"), (1, None)]}
    made, recorder, _ = poll(says("a"), says("a"), says("a"), rows=2, polling=majority(3, heard=heard))
    assert recorder.skipped == [(0, (1,))]
    assert [[body["content"] for body in provider.bodies] for provider in made.providers] == [
        [],
        [],
        ["row 1"],
    ]


def test_of_a_row_that_is_begun_the_next_voter_alone_is_asked() -> None:
    made, recorder, _ = poll(says("a"), says("a"), says("a"), polling=majority(3, heard={0: [(1, "a")]}))
    assert (asked(made), recorder.skipped) == ([1, 0, 0], [(0, (2,))])


def test_samples_of_any_lane_are_voters_too() -> None:
    made, recorder, _ = poll(says("a"), says("a"), rows=10, polling=majority(5, samples=5))
    assert sum(asked(made)) == 30
    assert sorted(recorder.skipped) == [(row, (3, 4)) for row in range(10)]
    assert {(one.row.ordinal, one.sample) for one in recorder.done} == {
        (row, sample) for row in range(10) for sample in range(3)
    }


def test_samples_of_each_lane_go_lane_by_lane() -> None:
    made, recorder, _ = poll(says("a"), says("a"), polling=majority(4, samples=2))
    assert asked(made) == [2, 1]
    assert {(one.lane, one.sample) for one in recorder.done} == {(0, 0), (0, 1), (1, 0)}
    assert recorder.skipped == [(0, (3,))]


def test_a_stop_skips_nothing() -> None:
    recorder = Puts()

    async def main() -> Ending:
        made = rig.Rig(says("a"), says("b"), says("a"), recorder=recorder, polling=majority(3), size=1)
        loop = asyncio.get_running_loop()
        loop.call_later(0.15, made.dispatcher.stop, Ending(ExitCode.INTERRUPTED))
        return await made.run([text_request(row, f"row {row}") for row in range(10)])

    run_virtual(main())
    assert recorder.skipped == []


_VOTE = st.sampled_from(["a", "b", "c", None])


@settings(max_examples=60, deadline=None)
@given(
    st.integers(2, 5).flatmap(
        lambda voters: st.lists(st.lists(_VOTE, min_size=voters, max_size=voters), min_size=1, max_size=6)
    ),
    st.integers(0, 2**32),
)
def test_the_label_is_that_of_asking_everyone(votes: list[list[str | None]], seed: int) -> None:
    voters = len(votes[0])
    providers = [
        says(*(rig.INVALID if row[at] is None else str(row[at]) for row in votes)) for at in range(voters)
    ]
    made, recorder, ending = poll(*providers, rows=len(votes), dice=random.Random(seed))
    assert ending.code is ExitCode.OK
    cast: dict[int, list[str]] = {row: [] for row in range(len(votes))}
    for one in recorder.done:
        cast[one.row.ordinal].append(str(one.answer))
    for row, all_votes in enumerate(votes):
        everyone = [vote for vote in all_votes if vote is not None]
        assert winner(cast[row], voters) == winner(everyone, voters)
    outcomes = len(recorder.done) + len(recorder.failed) + sum(len(slots) for _, slots in recorder.skipped)
    assert outcomes == len(votes) * voters
    assert not [one for one in recorder.records if isinstance(one, RowFailed) and one.sample is None]
    assert made.stats.skipped == sum(len(slots) for _, slots in recorder.skipped)


def winner(cast: Sequence[str], wanted: int) -> str | None:
    if len(cast) < wanted // 2 + 1:
        return None
    return next((label for label in set(cast) if 2 * cast.count(label) > len(cast)), None)
