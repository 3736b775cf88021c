"""Signals to this very process, whose handlers are put back after each test."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import job_rig as rig
import pytest

import batchllm
from batchllm.dispatch import Ending
from batchllm.engine.signals import RemoteStop, interrupts_for, stopping_on_signals
from batchllm.errors import ExitCode
from batchllm.running import Stop


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def nothing(_text: str) -> None:
    """Says nothing."""


async def test_a_terminal_that_hung_up_does_not_keep_the_run_going() -> None:
    def say(_text: str) -> None:
        raise OSError(5, "Input/output error")

    stop = Stop()
    with stopping_on_signals(asyncio.get_running_loop(), stop, in_flight=lambda: 3, say=say):
        os.kill(os.getpid(), signal.SIGHUP)
        ending = await asyncio.wait_for(stop.asked(), 10)
    assert ending.code is ExitCode.HANGUP


async def test_handlers_of_the_host_program_come_back() -> None:
    heard: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _frame: heard.append(number))
    with stopping_on_signals(asyncio.get_running_loop(), Stop(), in_flight=lambda: 0, say=nothing):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.sleep(0)
    assert heard == [signal.SIGTERM]


async def test_an_ignored_hangup_stays_ignored() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    stop = Stop()
    with stopping_on_signals(asyncio.get_running_loop(), stop, in_flight=lambda: 0, say=nothing):
        os.kill(os.getpid(), signal.SIGHUP)
        await asyncio.sleep(0)
    assert stop.ending is None
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


async def test_a_run_that_ended_after_the_second_signal_does_not_take_its_process_along() -> None:
    left: list[int] = []
    stop = Stop()
    loop = asyncio.get_running_loop()
    with stopping_on_signals(loop, stop, in_flight=lambda: 0, say=nothing, leave=left.append):
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.sleep(0.05)
        await asyncio.wait_for(stop.insisted(), 10)
        timers = [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]
        assert len(timers) == 1
    await asyncio.to_thread(timers[0].join, 10)
    assert left == []


async def test_the_third_signal_leaves_at_once() -> None:
    left: list[int] = []
    loop = asyncio.get_running_loop()
    with stopping_on_signals(loop, Stop(), in_flight=lambda: 0, say=nothing, leave=left.append):
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.sleep(0.05)
        assert left == [143]


HELD_UP = """
import asyncio, time
import uvloop
from batchllm.engine.signals import stopping_on_signals
from batchllm.running import Stop

async def main():
    loop = asyncio.get_running_loop()
    with stopping_on_signals(loop, Stop(), in_flight=lambda: 3, say=lambda text: print(text, flush=True)):
        print("held up", flush=True)
        time.sleep(50)

uvloop.run(main())
"""


@pytest.mark.parametrize("signals", [2, 3])
def test_a_loop_that_is_held_up_does_not_keep_the_second_ctrl_c_from_ending_the_process(signals: int) -> None:
    with subprocess.Popen([sys.executable, "-c", HELD_UP], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = [process.stdout.readline()]
        for _ in range(signals):
            process.send_signal(signal.SIGINT)
            if len(said) < 3:
                said.append(process.stdout.readline())
        assert process.wait(timeout=30) == ExitCode.INTERRUPTED
    assert "waiting for 3 calls" in said[1]
    assert "abandoning 3 calls" in said[2]


async def test_who_insists_while_no_call_is_in_flight_is_told_of_none_that_was_paid_for() -> None:
    said: list[str] = []
    loop, heard = asyncio.get_running_loop(), asyncio.Event()

    def say(text: str) -> None:
        said.append(text)
        loop.call_soon_threadsafe(heard.set)

    with stopping_on_signals(loop, Stop(), in_flight=lambda: 0, say=say):
        for _ in range(2):
            heard.clear()
            signal.raise_signal(signal.SIGINT)
            await asyncio.wait_for(heard.wait(), 10)
    assert "leaving in 5 s at most" in said[1]
    assert "paid for" not in said[1]


async def test_handlers_of_the_host_program_are_heard_while_a_run_listens() -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, _frame: heard.append(number))
    try:
        with stopping_on_signals(asyncio.get_running_loop(), Stop(), in_flight=lambda: 0, say=nothing):
            os.kill(os.getpid(), signal.SIGUSR1)
            await asyncio.sleep(0.05)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert heard == [signal.SIGUSR1]


def test_a_stop_that_was_asked_before_the_run_listens_is_heard() -> None:
    async def main() -> None:
        remote, stop = RemoteStop(), Stop()
        remote.ask(Ending(ExitCode.INTERRUPTED))
        remote.bind(asyncio.get_running_loop(), stop)
        assert (await stop.asked()).code is ExitCode.INTERRUPTED

    asyncio.run(main())


def test_a_stop_after_the_run_is_over_is_no_error() -> None:
    async def main() -> RemoteStop:
        remote = RemoteStop()
        remote.bind(asyncio.get_running_loop(), Stop())
        return remote

    asyncio.run(main()).ask(Ending(ExitCode.INTERRUPTED))


def test_only_the_third_interrupt_is_raised_where_the_run_is_waited_for() -> None:
    remote = RemoteStop()
    with interrupts_for(remote):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


async def test_ctrl_c_in_a_notebook_stops_the_run_and_keeps_what_came(tmp_path: Path) -> None:
    """The caller's loop is blocked meanwhile, so a thread that watches the provider's books sends the signal."""
    rig.write_rows(tmp_path / "rows.jsonl", 2_000)
    with rig.served({"latency": {"median_s": 0.02}}) as (urls, books):
        spec: dict[str, Any] = rig.job(tmp_path, [rig.lane(urls[0], "one", limits={"concurrency": 4})])

        def interrupt() -> None:
            while books[0].ledger.accepted < 20:
                pause.wait(0.005)
            os.kill(os.getpid(), signal.SIGINT)

        pause = threading.Event()
        thread = threading.Thread(target=interrupt)
        thread.start()
        result = batchllm.run(spec, folder=tmp_path)
        thread.join()
        billed = sum(books[0].ledger.billed.values())
    assert result.summary.exit_code == ExitCode.INTERRUPTED
    assert result.output.collect().height == billed < 2_000
    assert [thread.name for thread in threading.enumerate() if thread.name == "batchllm-run"] == []


@pytest.mark.parametrize("limit", [0, -5])
def test_a_limit_below_one_row_is_refused(tmp_path: Path, limit: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        batchllm.run({"name": "x"}, limit=limit, folder=tmp_path)
