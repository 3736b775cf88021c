"""A lane is asked for its fitness once a row, and again wherever the loop has waited since."""

import asyncio

import pytest
from dispatch_rig import Rig, rows

from batchllm.dispatch import Lane
from batchllm.testing import MemoryRecorder, ScriptedProvider, echo, run_virtual, text_request

SILENCE_S = 10.0


class SlowRecorder(MemoryRecorder):
    """Takes a second to hear of calls, or to have room for a second row; the lane is silenced meanwhile."""

    def __init__(self, waits_in: str) -> None:
        super().__init__()
        self._waits_in = waits_in
        self.lane: Lane | None = None

    @property
    def has_room(self) -> bool:
        return self._waits_in != "room" or not self.records

    async def room(self) -> None:
        if self._waits_in == "room":
            await self._wait()

    async def expose(self, calls: int, usd: float | None) -> None:
        if self._waits_in == "expose":
            await self._wait()

    async def _wait(self) -> None:
        await asyncio.sleep(1.0)
        if self.lane is not None:
            self.lane.limits.quiet(SILENCE_S)
        self._waits_in = ""


@pytest.mark.parametrize(("waits_in", "row"), [("expose", 0), ("room", 1)])
def test_a_lane_that_is_silenced_while_the_record_is_waited_for_sends_nothing(
    waits_in: str, row: int
) -> None:
    async def main() -> float:
        recorder = SlowRecorder(waits_in)
        rig = Rig(ScriptedProvider(echo), recorder=recorder, size=1)
        recorder.lane = rig.lanes[0]
        start_s = rig.clock.monotonic_s()
        await rig.run(rows(2))
        return rig.providers[0].sent_s[row] - start_s

    assert run_virtual(main()) >= 1.0 + SILENCE_S


def test_a_lane_that_is_silenced_while_tokens_are_waited_for_sends_nothing() -> None:
    async def main() -> float:
        rig = Rig(ScriptedProvider(echo), tpm=700)  # 0.9 s for the tokens of a row and of its answer
        start_s = rig.clock.monotonic_s()
        asyncio.get_running_loop().call_later(0.8, rig.lanes[0].limits.quiet, SILENCE_S)
        await rig.run([text_request(0, tokens=5), text_request(1, tokens=5)])
        first_s, second_s = rig.providers[0].sent_s
        assert first_s - start_s < 0.8
        return second_s - start_s

    assert run_virtual(main()) >= 0.8 + SILENCE_S
