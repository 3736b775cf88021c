"""Calls that are out, in virtual time."""

import asyncio

from dispatch_rig import Rig

from batchllm.dispatch.calls import Calls
from batchllm.dispatch.work import Work
from batchllm.limit.latency import Latency
from batchllm.testing import ScriptedProvider, echo, run_virtual, text_request


def rigged() -> tuple[Calls, Rig, list[asyncio.Task[None]]]:
    ended: list[asyncio.Task[None]] = []
    return Calls(ended.append), Rig(ScriptedProvider(echo)), ended


def test_a_call_that_takes_far_longer_than_any_before_is_cancelled_once_and_knows_why() -> None:
    async def main() -> tuple[list[bool], int]:
        calls, rig, ended = rigged()
        rig.lanes[0].latency = Latency(5.0)
        found: list[bool] = []

        async def call() -> None:
            try:
                await asyncio.sleep(60.0)
            except asyncio.CancelledError:
                found.append(calls.is_overdue(asyncio.current_task()))

        calls.start(call(), rig.lanes[0], Work(text_request(0)), 0.0, asyncio.get_running_loop())
        await asyncio.sleep(0)
        for now_s in (4.0, 6.0, 7.0):
            calls.end_overdue(now_s)
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return found, len(ended)

    assert run_virtual(main()) == ([True], 1)


def test_what_is_abandoned_is_not_overdue() -> None:
    async def main() -> tuple[list[bool], int]:
        calls, rig, _ = rigged()
        found: list[bool] = []

        async def call() -> None:
            try:
                await asyncio.sleep(60.0)
            except asyncio.CancelledError:
                found.append(calls.is_overdue(asyncio.current_task()))
                raise

        calls.start(call(), rig.lanes[0], Work(text_request(0)), 0.0, asyncio.get_running_loop())
        await asyncio.sleep(0)
        return found, await calls.abandon()

    assert run_virtual(main()) == ([False], 1)


def test_a_reply_that_came_in_the_same_turn_is_not_lost() -> None:
    async def main() -> str:
        calls, rig, _ = rigged()
        rig.lanes[0].latency = Latency(5.0)
        loop = asyncio.get_running_loop()
        reply: asyncio.Future[str] = loop.create_future()
        got: list[str] = []

        async def call() -> None:
            got.append(await reply)

        calls.start(call(), rig.lanes[0], Work(text_request(0)), 0.0, loop)
        await asyncio.sleep(0)
        reply.set_result("paid for")
        calls.end_overdue(6.0)
        await asyncio.sleep(0.1)
        return got[0]

    assert run_virtual(main()) == "paid for"
