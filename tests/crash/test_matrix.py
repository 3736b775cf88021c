"""Whole runs that are broken at system calls, a sample of the matrix of `python -m benchmarks.durability`."""

import pytest

from benchmarks.durability.matrix import SCENES, Bench, Scene
from benchmarks.durability.tracing import SYNCS, WRITE_CLASS, Call, Fault

#: A point is a whole job, started three times under strace and without it.
pytestmark = pytest.mark.timeout(240)
NEW, RESUMED, FINISHED = SCENES.values()


def point(calls: list[Call], share: float) -> Call:
    """That far into the run. The last tenth of an unbroken run's calls may not come again: commits differ in number."""
    assert len(calls) >= 3
    return calls[int(share * 0.9 * len(calls))]


def assert_kept(bench: Bench, scene: Scene, call: Call, error: str | None = None) -> None:
    """A run that makes fewer calls than the unbroken one did is broken at an earlier one."""
    nth = call.nth
    for _ in range(3):
        outcome = bench.broken(scene, Fault(call.name, nth, error, lasts=error == "ENOSPC"))
        assert outcome.wrong == ()
        assert outcome.bill.lost == 0
        assert outcome.bill.again <= bench.site.shape.in_flight
        if outcome.was_hit:
            return
        nth = max(1, nth * 3 // 4)
    raise AssertionError(f"no run came to {call.name} number {nth} or earlier")


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7])
def test_a_kill_while_a_new_job_starts_loses_nothing(bench: Bench, share: float) -> None:
    assert_kept(bench, NEW, point(bench.calls(NEW), share))


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.8, 1.0])
def test_a_kill_while_a_resumed_job_commits_and_completes_loses_nothing(bench: Bench, share: float) -> None:
    assert_kept(bench, RESUMED, point(bench.calls(RESUMED), share))


@pytest.mark.parametrize("share", [0.2, 0.8])
def test_a_kill_of_a_job_that_has_nothing_to_do_loses_nothing(bench: Bench, share: float) -> None:
    assert_kept(bench, FINISHED, point(bench.calls(FINISHED), share))


@pytest.mark.parametrize("name", ["linkat", "rename", "unlink", "fsync"])
def test_a_kill_at_each_step_of_a_part_and_of_the_manifest_loses_nothing(bench: Bench, name: str) -> None:
    calls = [call for call in bench.calls(RESUMED) if call.name == name]
    assert_kept(bench, RESUMED, calls[len(calls) // 2])


@pytest.mark.parametrize(("scene", "share"), [(NEW, 0.3), (RESUMED, 0.1), (RESUMED, 0.95), (FINISHED, 0.5)])
def test_a_disk_that_cannot_fsync_ends_the_run_and_what_was_committed_is_kept(
    bench: Bench, scene: Scene, share: float
) -> None:
    assert_kept(bench, scene, point(bench.own_calls(scene, SYNCS), share), "EIO")


@pytest.mark.parametrize(("scene", "share"), [(NEW, 0.4), (RESUMED, 0.1), (RESUMED, 0.9), (FINISHED, 0.5)])
def test_a_disk_that_is_full_from_some_write_on_ends_the_run_and_what_was_committed_is_kept(
    bench: Bench, scene: Scene, share: float
) -> None:
    """Writes at a place, which only files know: `write` number N may also be the one that wakes the loop up."""
    at_places = [call for call in bench.full_disk_calls(scene) if call.name.startswith("p")]
    assert_kept(bench, scene, point(at_places, share), "ENOSPC")


def test_no_write_is_refused_that_may_be_one_to_wake_the_loop_up(finished: Bench) -> None:
    part, loop = str(finished.site.out / "output" / "part"), "anon_inode:[eventfd]"
    made = [
        Call(1, "write", 1, part, ""),
        Call(2, "write", 1, "", f"5<{loop}>"),
        Call(1, "write", 2, part, ""),
        Call(1, "pwrite64", 1, part, ""),
        Call(2, "pwrite64", 1, "/elsewhere", ""),
    ]
    tried = Bench(finished.site, finished.expected, {RESUMED.name: made}).full_disk_calls(RESUMED)
    assert [(call.name, call.nth) for call in tried] == [("write", 2), ("pwrite64", 1)]


def test_the_calls_that_are_broken_are_those_of_the_protocol(bench: Bench) -> None:
    """Were they not found, the matrix would be empty and pass."""
    new = {call.name for call in bench.own_calls(NEW, WRITE_CLASS)}
    resumed = {call.name for call in bench.own_calls(RESUMED, WRITE_CLASS)}
    assert new >= {"mkdir", "openat", "pwrite64", "fdatasync", "fsync", "link", "unlink"}
    assert resumed >= {"openat", "pwrite64", "fdatasync", "write", "fsync", "linkat", "unlink", "rename"}
