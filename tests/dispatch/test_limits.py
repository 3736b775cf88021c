"""Limits of a lane as the dispatcher keeps them."""

import asyncio
from collections.abc import AsyncIterator, Sequence

from dispatch_rig import Rig, rows, run

from batchllm.errors import ExitCode
from batchllm.limit.lane_limits import LaneLimits
from batchllm.limit.output_size import OutputSize
from batchllm.records import Request
from batchllm.testing import ScriptedProvider, echo, packed_request, run_virtual, text_request


def test_after_a_pause_of_the_feed_no_second_holds_more_than_its_share() -> None:
    async def slow_feed() -> AsyncIterator[Sequence[Request]]:
        yield rows(1)
        await asyncio.sleep(30.0)
        yield [text_request(ordinal) for ordinal in range(1, 6)]

    async def main() -> Rig:
        rig = Rig(ScriptedProvider(echo), rpm=60)
        ending = await rig.dispatcher.run(slow_feed())
        assert ending.code is ExitCode.OK
        return rig

    sent = run_virtual(main()).providers[0].sent_s
    assert max(sum(1 for s in sent if start <= s < start + 0.99) for start in sent) == 1


def test_a_guess_of_the_answer_s_size_refuses_no_row() -> None:
    def make() -> Rig:
        rig = Rig(ScriptedProvider(echo), tpm=200)
        rig.lanes[0].output_size = OutputSize(None)
        return rig

    rig, ending = run(make, rows(5))
    assert ending.code is ExitCode.OK
    assert len(rig.answers()) == 5


def test_a_prompt_above_the_minute_goes_to_a_lane_that_takes_it_or_fails_with_a_remedy() -> None:
    requests = [text_request(0, tokens=500), text_request(1)]
    alone, _ = run(lambda: Rig(ScriptedProvider(echo), tpm=200), requests)
    assert [(failed.row.ordinal, failed.code) for failed in alone.recorder.failed] == [(0, "too_large")]
    assert "raise limits.tpm" in alone.recorder.failed[0].message

    def make() -> Rig:
        rig = Rig(ScriptedProvider(echo), ScriptedProvider(echo), tpm=200)
        lane = rig.lanes[1]
        lane.limits = LaneLimits(clock=rig.clock, window=lane.window, tpm=10_000)
        return rig

    both, _ = run(make, requests)
    assert len(both.answers()) == 2


def test_a_pack_above_the_minute_is_split_until_it_fits() -> None:
    rig, _ = run(lambda: Rig(ScriptedProvider(echo), tpm=25), [packed_request(range(8))])
    assert len(rig.answers()) == 8
    assert [len(body["content"]) for body in rig.providers[0].bodies] == [2, 2, 2, 2]


def test_until_when_a_request_waits_for_its_tokens_can_be_seen() -> None:
    async def main() -> tuple[float, float]:
        rig = Rig(ScriptedProvider(echo), tpm=60)
        running = asyncio.create_task(rig.run([text_request(0, tokens=50)]))
        await asyncio.sleep(1.0)
        now_s, until_s = asyncio.get_running_loop().time(), rig.lanes[0].tokens_at_s
        await running
        return until_s - now_s, rig.providers[0].sent_s[0] - now_s

    told_s, was_s = run_virtual(main())
    assert told_s > 10
    assert abs(told_s - was_s) < 0.01
