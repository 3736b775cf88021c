"""The order of a run: what must hold when it is cut off from outside."""

import asyncio
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from dispatch_rig import Rig

from batchllm.records import BadRow, Request, Response, Row
from batchllm.running import RunParts, Stop, _dispatch, limited
from batchllm.testing import ScriptedProvider, echo, text_request


class Rows:
    def batches(self) -> Iterator[Sequence[Row | BadRow]]:
        for start in range(0, 10_000, 100):
            yield [Row(ordinal, None, {}, b"[]") for ordinal in range(start, start + 100)]


class Plain:
    """A planner that asks every row."""

    def requests(self, batch: Sequence[Row | BadRow]) -> list[Request]:
        return [text_request(row.ordinal) for row in batch]

    def flush(self) -> list[Request]:
        return []


async def test_a_run_that_is_cancelled_sends_nothing_more_and_waits_for_what_is_out() -> None:
    began = asyncio.Event()

    def script(body: dict[str, str], call: int) -> Response:
        began.set()
        return echo(body)

    rig = Rig(ScriptedProvider(script, latency_s=0.01), size=4)
    parts: Any = RunParts(
        batches=Rows().batches,
        planner=Plain(),  # type: ignore[arg-type]
        journal=None,  # type: ignore[arg-type]
        dispatcher=rig.dispatcher,
        stats=rig.stats,
        clock=rig.clock,
        units=10_000,
        is_whole=True,
        drain_timeout_s=5.0,
    )
    with ThreadPoolExecutor(1) as reader:
        running = asyncio.create_task(_dispatch(parts, Stop(), reader))
        await began.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    sent = rig.calls
    assert rig.dispatcher.in_flight == 0
    assert sent == len(rig.recorder.attempts) < 1_000
    assert len(asyncio.all_tasks()) == 1


@pytest.mark.parametrize(
    ("limit", "count"), [(None, 10_000), (1, 1), (100, 100), (101, 101), (99_999, 10_000)]
)
def test_a_limit_takes_the_first_rows(limit: int | None, count: int) -> None:
    taken = [row.ordinal for batch in limited(Rows().batches(), limit) for row in batch]
    assert taken == list(range(count))
