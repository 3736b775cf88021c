"""Queue and thread, with a store that the test holds in its hand."""

import asyncio
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from batchllm.errors import FullDiskError, InvariantError, OutOfMemoryError, StorageError
from batchllm.journal.writer import QueueLimits, Writer


class Store:
    """Commits when the gate is open; raises or returns what it is told to."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.commits: list[list[object]] = []
        self.raises: Exception | None = None
        self.returns: Exception | None = None
        self.slices = 0
        self.step_raises: Exception | None = None
        self.is_short = self.gets_space = self.is_crowded = False
        self.short_error: Exception | None = None
        self.saved: list[object] = []
        self.unsure = 0
        self.due_raises: BaseException | None = None

    def commit(self, records):
        self.entered.set()
        assert self.gate.wait(30)
        if self.raises is not None:
            raise self.raises
        self.commits.append(list(records))
        return self.returns

    def step(self):
        if self.step_raises is not None:
            raise self.step_raises
        self.slices -= 1

    @property
    def is_due(self):
        if self.due_raises is not None:
            raise self.due_raises
        return self.slices > 0

    def look(self):
        if self.gets_space:
            self.is_short = False
        return self.short_error

    def save(self, records, unsure):
        self.saved, self.unsure = list(records), unsure


@pytest.fixture
def store():
    return Store()


@pytest.fixture
async def writer(store):
    writer = Writer(store, QueueLimits(rows=4, bytes=1000))
    writer.start(asyncio.get_running_loop(), None)
    yield writer
    store.gate.set()
    await writer.stop()


async def test_what_was_put_is_committed_in_order(kit, writer, store):
    for row in range(20):
        writer.put([kit.attempt(row)])
    await writer.flush()
    assert [record.row for commit in store.commits for record in commit] == list(range(20))


async def test_how_much_is_committed_and_how_much_waits_can_be_seen(kit, writer, store):
    writer.put([kit.attempt(row) for row in range(3)])
    await writer.flush()
    store.gate.clear()
    writer.put([kit.attempt(3), kit.attempt(4)])
    assert writer.progress == (3, 2)
    store.gate.set()
    await writer.flush()
    assert writer.progress == (5, 0)


async def test_what_gathers_during_one_commit_goes_into_the_next(kit, writer, store):
    store.gate.clear()
    writer.put([kit.attempt(0)])
    await asyncio.to_thread(store.entered.wait)
    for row in range(1, 10):
        writer.put([kit.attempt(row)])
    store.gate.set()
    await writer.flush()
    assert [len(commit) for commit in store.commits] == [1, 9]


@pytest.mark.parametrize("full", ["rows", "bytes", "failed bytes"])
async def test_room_waits_while_the_queue_is_full_and_ends_with_a_commit(kit, writer, store, full):
    records = {
        "rows": [kit.attempt(row) for row in range(4)],
        "bytes": [kit.done(0, answer="x" * 1000)],
        "failed bytes": [kit.failed(0, content="x" * 1000)],
    }[full]
    await writer.room()
    store.gate.clear()
    writer.put(records)
    waiting = asyncio.create_task(writer.room())
    await asyncio.to_thread(store.entered.wait)
    await asyncio.sleep(0)
    assert not waiting.done()
    store.gate.set()
    await waiting


async def test_a_wait_for_room_that_is_cancelled_harms_no_other(kit, writer, store):
    store.gate.clear()
    writer.put([kit.attempt(row) for row in range(4)])
    first, second = asyncio.create_task(writer.room()), asyncio.create_task(writer.room())
    await asyncio.sleep(0)
    first.cancel()
    store.gate.set()
    await second
    assert first.cancelled()


async def test_a_flush_that_is_cancelled_does_not_end_the_writer(kit, writer, store):
    store.gate.clear()
    writer.put([kit.attempt(0)])
    await asyncio.to_thread(store.entered.wait)
    flushing = asyncio.create_task(writer.flush())
    await asyncio.sleep(0)
    flushing.cancel()
    await asyncio.gather(flushing, return_exceptions=True)
    store.gate.set()
    writer.put([kit.attempt(1)])
    await writer.flush()
    assert len(store.commits) == 2


async def committed(writer, records: int) -> None:
    """Return when so many of all records put are committed, without asking the writer for anything."""
    told = asyncio.Event()
    writer.watch(lambda safe: told.set() if safe >= records else None)
    await told.wait()


async def test_nothing_is_held_back_after_a_commit_of_any_size(kit, writer, store):
    for size in (1, 1, 1_000, 1):
        writer.put([kit.attempt(row) for row in range(size)])
        await committed(writer, sum(map(len, store.commits)) + size)
    assert [len(commit) for commit in store.commits] == [1, 1, 1_000, 1]


async def test_a_failed_commit_reaches_room_and_flush_and_nothing_is_committed_after_it(kit, writer, store):
    store.raises = StorageError("the disk is full")
    writer.put([kit.attempt(0)])
    for wait in (writer.flush, writer.room, writer.flush):
        with pytest.raises(StorageError, match="the disk is full"):
            await wait()
    store.raises = None
    writer.put([kit.attempt(1)])
    with pytest.raises(StorageError):
        await writer.flush()
    assert store.commits == []


async def test_a_failed_commit_wakes_those_who_wait_for_room(kit, writer, store):
    store.gate.clear()
    store.raises = StorageError("the disk is full")
    writer.put([kit.attempt(row) for row in range(4)])
    waiting = asyncio.create_task(writer.room())
    await asyncio.sleep(0)
    store.gate.set()
    with pytest.raises(StorageError):
        await waiting


async def test_an_error_that_a_commit_returns_stops_the_run_but_not_the_commits(kit, writer, store):
    store.returns = InvariantError("row 1 came twice")
    writer.put([kit.attempt(0)])
    with pytest.raises(InvariantError):
        await writer.flush()
    store.returns = None
    writer.put([kit.attempt(1)])
    with pytest.raises(InvariantError, match="row 1 came twice"):
        await writer.flush()
    assert len(store.commits) == 2


async def test_an_error_of_a_drain_stops_the_run_and_the_drains_but_not_the_commits(kit, writer, store):
    store.step_raises, store.slices = StorageError("no part can be written"), 5
    writer.put([kit.attempt(0)])
    with pytest.raises(StorageError, match="no part"):
        await kit.flush_until_it_fails(writer)
    writer.put([kit.attempt(1)])
    with pytest.raises(StorageError):
        await writer.flush()
    assert len(store.commits) == 2


@pytest.mark.parametrize(
    ("bug", "error"),
    [
        (ZeroDivisionError("x"), InvariantError),
        (SystemExit("x"), InvariantError),
        (OSError("x"), StorageError),
    ],
)
async def test_whatever_the_store_raises_stops_the_run_and_names_itself(kit, writer, store, bug, error):
    store.raises = bug
    writer.put([kit.attempt(0)])
    with pytest.raises(error, match=f"{type(bug).__name__}: x"):
        await writer.flush()
    assert writer.call(lambda: "still there") == "still there"


async def test_a_drain_that_is_torn_out_leaves_nobody_waiting(kit, writer, store):
    store.step_raises, store.slices = KeyboardInterrupt("x"), 1
    writer.put([kit.attempt(0)])
    with pytest.raises(InvariantError, match="KeyboardInterrupt"):
        await kit.flush_until_it_fails(writer)
    assert writer.call(lambda: "still there") == "still there"


async def eventually(condition) -> None:
    """The bound is a failed test, not a time to pass."""
    for _ in range(3000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come about")


def want_space(store) -> None:
    store.is_short, store.raises = True, FullDiskError("no space")


def give_space(store) -> None:
    store.gets_space, store.raises = True, None


async def test_records_that_found_no_space_are_committed_in_order_once_there_is_some(kit, writer, store):
    want_space(store)
    writer.put([kit.attempt(0)])
    await asyncio.to_thread(store.entered.wait)
    writer.put([kit.attempt(1)])
    waiting = asyncio.create_task(writer.room())
    with pytest.raises(FullDiskError, match="no space"):
        await writer.flush()
    assert not waiting.done()
    give_space(store)
    await waiting
    await writer.flush()
    assert [record.row for commit in store.commits for record in commit] == [0, 1]
    assert writer.error is None


async def test_while_space_is_short_nothing_is_let_in_and_what_comes_is_kept(kit, writer, store):
    store.is_short = True
    waiting = asyncio.create_task(writer.room())
    writer.put([kit.attempt(0)])
    await writer.flush()
    assert len(store.commits) == 1
    assert not writer.has_room
    assert not waiting.done()
    store.gets_space = True
    await waiting


async def test_the_end_of_patience_is_the_error_of_room(kit, writer, store):
    store.is_short, store.short_error = True, FullDiskError("no space for an hour")
    writer.put([kit.attempt(0)])
    with pytest.raises(FullDiskError, match="for an hour"):
        await writer.room()
    await eventually(lambda: store.commits)


async def test_what_finds_no_space_to_the_very_end_is_saved_and_raised(kit, store):
    writer = Writer(store, QueueLimits())
    writer.start(asyncio.get_running_loop(), None)
    want_space(store)
    writer.put([kit.attempt(0)])
    with pytest.raises(FullDiskError):
        await writer.flush()
    writer.put([kit.attempt(1)])
    await writer.stop()
    assert [record.row for record in store.saved] == [0, 1]
    assert store.unsure == 0
    assert isinstance(writer.error, FullDiskError)


async def test_after_a_failed_commit_all_that_is_left_is_saved_with_how_much_of_it_is_unsure(kit, store):
    writer = Writer(store, QueueLimits())
    writer.start(asyncio.get_running_loop(), None)
    store.raises = StorageError("fsync failed")
    writer.put([kit.attempt(0), kit.attempt(1)])
    with pytest.raises(StorageError, match="fsync failed"):
        await writer.flush()
    store.raises = None
    writer.put([kit.attempt(2)])
    await writer.stop()
    assert [record.row for record in store.saved] == [0, 1, 2]
    assert store.unsure == 2
    assert store.commits == []


async def test_a_bug_between_two_commits_ends_the_run_and_not_the_thread(kit, writer, store):
    store.due_raises = RuntimeError("no such kind")
    writer.put([kit.attempt(0)])
    with pytest.raises(InvariantError, match="RuntimeError: no such kind"):
        await kit.flush_until_it_fails(writer)
    assert writer.call(lambda: "still there") == "still there"


async def test_slices_of_a_drain_are_done_without_new_records(kit, writer, store):
    store.slices = 5
    writer.put([kit.attempt(0)])
    while store.slices:
        await writer.flush()
    assert len(store.commits) == 1


async def test_calls_run_after_what_was_put_before_them(kit, writer, store):
    writer.put([kit.attempt(0)])
    assert await asyncio.to_thread(writer.call, lambda: len(store.commits)) == 1


async def test_an_error_of_a_call_is_its_callers(writer):
    with pytest.raises(ZeroDivisionError):
        writer.call(lambda: 1 / 0)
    await writer.flush()


async def test_the_loop_goes_on_while_it_waits_for_a_call_and_has_its_result_or_its_error(kit, writer, store):
    store.gate.clear()
    writer.put([kit.attempt(0)])
    waiting = asyncio.create_task(writer.perform(lambda: len(store.commits)))
    await asyncio.sleep(0)
    assert not waiting.done()
    store.gate.set()
    assert await waiting == 1
    with pytest.raises(ZeroDivisionError):
        await writer.perform(lambda: 1 / 0)


async def test_commits_are_told_on_the_loops_thread(kit, store):
    heard: list[tuple[int, int]] = []
    writer = Writer(store, QueueLimits())
    writer.start(
        asyncio.get_running_loop(), lambda: heard.append((len(store.commits), threading.get_ident()))
    )
    writer.put([kit.attempt(0)])
    await writer.flush()
    await asyncio.sleep(0)
    await writer.stop()
    assert heard[0] == (1, threading.get_ident())


async def test_stop_commits_what_is_left_and_refuses_what_comes_later(kit, store):
    writer = Writer(store, QueueLimits())
    writer.start(asyncio.get_running_loop(), None)
    writer.put([kit.attempt(0)])
    await writer.stop()
    assert len(store.commits) == 1
    with pytest.raises(InvariantError, match="after the journal was closed"):
        writer.put([kit.attempt(1)])
    with pytest.raises(InvariantError, match="closed"):
        writer.call(lambda: None)


async def test_without_a_thread_calls_commit_first(kit, store):
    writer = Writer(store, QueueLimits())
    writer.put([kit.attempt(0)])
    assert writer.call(lambda: len(store.commits)) == 1
    writer.put([kit.attempt(1)])
    await writer.stop()
    assert len(store.commits) == 2


def test_a_loop_that_is_gone_does_not_end_the_writer(kit, store):
    writer = Writer(store, QueueLimits())

    async def start():
        writer.start(asyncio.get_running_loop(), None)

    asyncio.run(start())
    writer.put([kit.attempt(0)])
    assert writer.call(lambda: len(store.commits)) == 1
    asyncio.run(writer.stop())


UNCLOSED = """
import asyncio
from batchllm.journal.writer import QueueLimits, Writer

class Store:
    is_due = is_short = is_crowded = False
    def commit(self, records):
        print("committed", len(records), flush=True)

async def main():
    writer = Writer(Store(), QueueLimits())
    writer.start(asyncio.get_running_loop(), None)
    writer.put([object(), object()])
    raise SystemExit(3)

asyncio.run(main())
"""


def test_a_process_that_ends_without_stopping_the_writer_commits_and_ends():
    root = Path(__file__).parent.parent.parent
    ended = subprocess.run(
        [sys.executable, "-c", UNCLOSED], cwd=root, capture_output=True, text=True, timeout=30, check=False
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (3, "committed 2\n", "")


async def test_want_of_memory_is_named_as_such_and_what_was_at_hand_is_saved(kit, writer, store):
    store.raises = MemoryError()
    writer.put([kit.attempt(0)])
    with pytest.raises(OutOfMemoryError, match="no more memory"):
        await writer.flush()
    await writer.stop()
    assert [record.row for record in store.saved] == [0]


async def test_a_thread_that_the_system_does_not_give_is_not_waited_for(kit, store, monkeypatch):
    def refused(_self):
        raise RuntimeError("can't start new thread")

    writer = Writer(store, QueueLimits(rows=4, bytes=1000))
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refused)
        with pytest.raises(RuntimeError, match="can't start"):
            writer.start(asyncio.get_running_loop(), None)
    await writer.stop()
