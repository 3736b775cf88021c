import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from batchllm.limit.processes import Process, is_gone, this_process


def proc_with(folder: Path, pid: int, stat: str) -> Path:
    (folder / str(pid)).mkdir()
    (folder / str(pid) / "stat").write_text(stat)
    return folder


def stat_line(pid: int, state: str, started: int) -> str:
    return f"{pid} (a) b (c) {state} " + " ".join(["0"] * 18) + f" {started} 0 0"


def test_this_process_is_there() -> None:
    here = this_process()
    assert here.pid == os.getpid()
    assert not is_gone(here, here)


def test_a_process_that_has_ended_is_gone() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    here = this_process()
    assert is_gone(replace(here, pid=child.pid), here)


def test_a_killed_process_is_gone_before_its_parent_has_asked() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    here = this_process()
    started = Path(f"/proc/{child.pid}/stat")
    process = replace(here, pid=child.pid, started="")
    assert not is_gone(process, here)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # dead, and not yet buried
    is_seen = started.exists()
    try:
        assert is_gone(process, here) is is_seen
    finally:
        child.wait()
        assert child.stdin is not None
        child.stdin.close()


def test_a_number_that_is_used_again_is_another_process(tmp_path: Path) -> None:
    proc = proc_with(tmp_path, os.getpid(), stat_line(os.getpid(), "S", 777))
    here = this_process(proc)
    assert here.started == "777"
    assert not is_gone(here, here, proc)
    assert is_gone(replace(here, started="776"), here, proc)


@pytest.mark.parametrize(("state", "gone"), [("R", False), ("T", False), ("Z", True), ("X", True)])
def test_a_stopped_process_is_there_and_a_dead_one_is_gone(tmp_path: Path, state: str, gone: bool) -> None:
    here = Process("boot", "space", os.getpid(), "777")
    proc = proc_with(tmp_path, os.getpid(), stat_line(os.getpid(), state, 777))
    assert is_gone(here, here, proc) is gone


def test_nothing_of_another_boot_runs_here(tmp_path: Path) -> None:
    here = Process("boot", "space", os.getpid(), "")
    assert is_gone(replace(here, boot="earlier"), here, tmp_path)


def test_a_number_of_another_container_says_nothing(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    here = Process("boot", "space", os.getpid(), "")
    assert is_gone(replace(here, pid=child.pid), here, tmp_path)
    assert not is_gone(replace(here, pid=child.pid, namespace="other"), here, tmp_path)


def test_a_system_without_such_files_tells_by_the_number_alone(tmp_path: Path) -> None:
    here = this_process(tmp_path)
    assert here == Process("", "", os.getpid(), "")
    assert not is_gone(here, here, tmp_path)


def test_a_file_cut_short_says_nothing(tmp_path: Path) -> None:
    proc = proc_with(tmp_path, os.getpid(), "12 (x) Z 1")
    here = this_process(proc)
    assert here.started == ""
    assert not is_gone(here, here, proc)
