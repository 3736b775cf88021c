"""Real processes on one file. Waits poll for a state, and give up after a time that no healthy machine needs."""

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
from registry_rig import POOL

from batchllm.clock import SystemClock
from batchllm.errors import InvariantError
from batchllm.limit.member import Member
from batchllm.limit.registry import Pace
from batchllm.limit.shared_limits import SharedLimits
from batchllm.limit.sharing import Report

QUICK = Pace(beat_s=0.02, hungry_s=0.01, lease_s=1.0, retry_s=0.02)
PATIENCE_S = 40.0

#: Another process: joins the pool of the test, and says its standing at each line that it reads.
PEER = """
import asyncio, json, sys, time
from dataclasses import astuple
from batchllm.clock import SystemClock
from batchllm.limit.pool import Pool
from batchllm.limit.registry import Pace
from batchllm.limit.shared_limits import SharedLimits

async def main():
    shared = SharedLimits.open(
        say=lambda text: print(text, file=sys.stderr), environ={"BATCHLLM_STATE_DIR": sys.argv[1]},
        is_network=lambda path: False, clock=SystemClock(), pace=Pace(*json.loads(sys.argv[2])),
    )
    member = await shared.join(Pool(*json.loads(sys.argv[3])))
    while await asyncio.to_thread(sys.stdin.readline):
        print(json.dumps([member.standing.share_at(time.monotonic()), member.standing.others]), flush=True)
    await shared.close()

asyncio.run(main())
"""


class Child:
    def __init__(self, folder: Path) -> None:
        pace = json.dumps([QUICK.beat_s, QUICK.hungry_s, QUICK.lease_s, QUICK.retry_s])
        pool = json.dumps([POOL.base_url, POOL.model, POOL.api_key])
        self.process = subprocess.Popen(
            [sys.executable, "-c", PEER, str(folder), pace, pool],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def share(self) -> float:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        share, _ = json.loads(self.process.stdout.readline())
        return float(share)

    def end(self) -> None:
        """It leaves when its input ends."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert self.process.wait(PATIENCE_S) == 0

    def clean_up(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not is_so():  # noqa: ASYNC110 - the state is another process's
            await asyncio.sleep(0.005)


@asynccontextmanager
async def shared_limits(folder: Path, said: list[str] | None = None) -> AsyncIterator[SharedLimits]:
    shared = SharedLimits.open(
        say=[].append if said is None else said.append,
        environ={"BATCHLLM_STATE_DIR": str(folder)},
        is_network=lambda path: False,
        clock=SystemClock(),
        pace=QUICK,
    )
    try:
        yield shared
    finally:
        await shared.close()


@asynccontextmanager
async def child_beside(folder: Path) -> AsyncIterator[tuple[Member, Child]]:
    """This process and another, each with half of the limit."""
    async with shared_limits(folder) as shared:
        member = await shared.join(POOL)
        child = Child(folder)
        try:
            await until(lambda: member.standing.share == 0.5)
            await until(lambda: child.share() == 0.5)
            yield member, child
        finally:
            child.clean_up()


def lines(folder: Path) -> int:
    with closing(sqlite3.connect(folder / "limits.db")) as connection:
        return int(connection.execute("SELECT count(*) FROM members").fetchone()[0])


async def test_who_is_alone_may_begin_when_join_returns(tmp_path: Path) -> None:
    async with shared_limits(tmp_path) as shared:
        member = await shared.join(POOL)
        assert member.standing.share_at(SystemClock().monotonic_s()) == 1.0
        lease_s = member.standing.lease_until_s
        await until(lambda: member.standing.lease_until_s > lease_s)
    assert lines(tmp_path) == 0


async def test_another_process_that_ends_gives_its_share_back(tmp_path: Path) -> None:
    async with child_beside(tmp_path) as (member, child):
        child.end()
        await until(lambda: member.standing.share == 1.0)


async def test_another_process_that_is_killed_gives_its_share_back(tmp_path: Path) -> None:
    async with child_beside(tmp_path) as (member, child):
        child.process.kill()
        await until(lambda: member.standing.share == 1.0)


async def test_a_stopped_process_loses_its_share_and_gets_it_back_without_ever_using_it_twice(
    tmp_path: Path,
) -> None:
    async with child_beside(tmp_path) as (member, child):
        os.kill(child.process.pid, signal.SIGSTOP)
        await until(lambda: member.standing.share == 1.0)
        os.kill(child.process.pid, signal.SIGCONT)
        assert child.share() <= 0.5
        await until(lambda: member.standing.share == 0.5)
        await until(lambda: child.share() == 0.5)


async def test_a_member_that_leaves_is_out_of_the_file_while_others_stay(tmp_path: Path) -> None:
    async with shared_limits(tmp_path) as shared:
        one, two = await shared.join(POOL), await shared.join(POOL)
        one.leave()
        await until(lambda: two.standing.share == 1.0)
        assert lines(tmp_path) == 1


async def test_the_loop_hears_of_changes_on_its_own_thread(tmp_path: Path) -> None:
    async with shared_limits(tmp_path) as shared:
        one = await shared.join(POOL)
        threads: list[threading.Thread] = []
        one.watch(lambda: threads.append(threading.current_thread()))
        await shared.join(POOL)
        await until(lambda: bool(threads))
        assert set(threads) == {threading.current_thread()}


async def test_a_silence_reaches_the_others(tmp_path: Path) -> None:
    async with shared_limits(tmp_path) as shared, shared_limits(tmp_path) as others:
        one, two = await shared.join(POOL), await others.join(POOL)
        quiet_until_s = SystemClock().monotonic_s() + 60
        one.report(Report(quiet_until_s=quiet_until_s))
        await until(lambda: two.standing.quiet_until_s == quiet_until_s)


async def test_a_join_that_is_cut_off_leaves_nobody_behind(tmp_path: Path) -> None:
    async with shared_limits(tmp_path) as shared:
        staying = await shared.join(POOL)
        joining = asyncio.ensure_future(shared.join(POOL))
        await asyncio.sleep(0)
        joining.cancel()
        with pytest.raises(asyncio.CancelledError):
            await joining
        late = await shared.join(POOL)  # asked for after it, so it is through
        assert lines(tmp_path) == 2
        await until(lambda: staying.standing.share == late.standing.share == 0.5)


async def test_nobody_joins_what_is_closed(tmp_path: Path) -> None:
    async with shared_limits(tmp_path) as shared:
        await shared.join(POOL)
    with pytest.raises(InvariantError):
        await shared.join(POOL)
    await shared.close()


async def test_a_folder_that_cannot_be_used_is_said_on_the_loop_and_holds_nobody_up(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    said: list[str] = []
    async with shared_limits(tmp_path / "file", said) as shared:
        member = await shared.join(POOL)
        assert member.standing.share_at(float("1e18")) == 1.0
        await until(lambda: bool(said))
    assert "BATCHLLM_STATE_DIR" in said[0]
    assert len(said) == 1


async def test_a_fault_that_nobody_thought_of_costs_the_sharing_and_not_the_run(tmp_path: Path) -> None:
    class BrokenClock(SystemClock):
        def wall_s(self) -> float:
            raise ZeroDivisionError("no time")

    said: list[str] = []
    shared = SharedLimits.open(
        say=said.append,
        environ={"BATCHLLM_STATE_DIR": str(tmp_path)},
        is_network=lambda path: False,
        clock=BrokenClock(),
        pace=QUICK,
    )
    member = await shared.join(POOL)
    assert member.standing.share_at(1e18) == 1.0
    await until(lambda: bool(said))
    await shared.close()
    assert "ZeroDivisionError" in said[0]
