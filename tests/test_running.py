"""The order of a run: what must hold when it is cut off from outside."""

import asyncio
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from dispatch_rig import Rig

from batchllm.dispatch import Ending
from batchllm.errors import ExitCode
from batchllm.records import BadRow, Request, Response, Row
from batchllm.running import RunParts, Stop, _dispatch, _Patience, _seal, limited
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


def parts_of(rig: Rig, journal: Any = None, **others: Any) -> RunParts:
    return RunParts(
        batches=Rows().batches,
        planner=Plain(),  # type: ignore[arg-type]
        journal=journal,
        dispatcher=rig.dispatcher,
        stats=rig.stats,
        clock=rig.clock,
        units=10_000,
        is_whole=True,
        **others,
    )


async def test_a_run_that_is_cancelled_sends_nothing_more_and_waits_for_what_is_out() -> None:
    began = asyncio.Event()

    def script(body: dict[str, str], call: int) -> Response:
        began.set()
        return echo(body)

    rig = Rig(ScriptedProvider(script, latency_s=0.01), size=4)
    parts = parts_of(rig, drain_timeout_s=5.0)
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


class Recorded:
    """A journal that says what was asked of it; rows are on their way until `arrives`."""

    def __init__(self, *, arrives: bool) -> None:
        self._arrives = arrives
        self.did: list[str] = []

    def settle(self, is_late: Any) -> bool:
        self.did.append("settle")
        return self._arrives or not is_late()

    def complete(self, units: int, is_late: Any) -> None:
        self.did.append("complete")

    def seal(self) -> None:
        self.did.append("seal")


@pytest.mark.parametrize(
    ("arrives", "late", "code", "did"),
    [
        (True, False, ExitCode.OK, ["settle", "finish", "complete"]),
        (False, False, ExitCode.OK, ["settle", "finish", "complete"]),
        (True, True, ExitCode.INTERRUPTED, ["settle", "finish", "seal"]),
        (False, True, ExitCode.INTERRUPTED, ["settle", "seal"]),
    ],
)
async def test_an_end_that_nobody_waits_for_leaves_rows_on_their_way(
    arrives: bool, late: bool, code: ExitCode, did: list[str]
) -> None:
    journal = Recorded(arrives=arrives)
    rig = Rig(ScriptedProvider(lambda body, _call: echo(body)))
    parts = parts_of(rig, journal, drain_timeout_s=0.0, finish=lambda: journal.did.append("finish"))
    stop, patience = Stop(), _Patience(rig.clock, 0.0)
    if late:
        stop.ask(Ending(code, "", ""))
        await patience.begin(stop)
    _seal(parts, Ending(code, "", ""), patience)
    assert journal.did == did
