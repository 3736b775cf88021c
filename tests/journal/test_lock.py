import fcntl
import os
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from batchllm.errors import LockedError, OutputError
from batchllm.journal.lock import OutputLock, holder_of, is_current, shared_lock

ROOT = Path(__file__).parent.parent.parent
HOLDER = """
import sys
from pathlib import Path
from batchllm.journal.lock import OutputLock
lock = OutputLock.acquire(Path(sys.argv[1]), about={"started": "noon"})
print("held", flush=True)
sys.stdin.read()
"""
ASKER = """
import sys
from pathlib import Path
from batchllm.journal.lock import holder_of
print("asking", flush=True)
while True:
    holder_of(Path(sys.argv[1]))
"""
FORBIDDEN = """
import os, sys
from pathlib import Path
from batchllm.errors import BatchllmError
from batchllm.journal.files import Layout
from batchllm.journal.opening import open_database
from batchllm.journal.identity import stored_job
from batchllm.journal.lock import OutputLock, holder_of
os.setgid(65534)
os.setuid(65534)
out = Path(sys.argv[1])
for act in (
    lambda: OutputLock.acquire(out, about={}),
    lambda: open_database(Layout(out), is_network=False),
    lambda: stored_job(out),
    lambda: holder_of(out),
):
    try:
        act()
    except BatchllmError as error:
        print(type(error).__name__, error.message, error.remedy, sep="|")
"""


@pytest.fixture
def holder(out):
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(out)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        text=True,
    ) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_process_is_refused_with_who_holds_it_since_when(out, holder):
    with pytest.raises(LockedError, match=rf"held by pid {holder.pid} on .* since noon") as caught:
        OutputLock.acquire(out, about={})
    assert caught.value.exit_code == 75


@pytest.mark.parametrize(
    ("started", "said"), [(1795452630.04, "2026-11-23T16:50:30.040Z"), (1e300, "1e+300"), ("noon", "noon")]
)
def test_the_time_of_a_holder_is_said_in_utc(out, started, said):
    with OutputLock.acquire(out, about={"started": started}), pytest.raises(LockedError) as caught:
        OutputLock.acquire(out, about={})
    assert caught.value.message.endswith(f" since {said}")


RACER = """
import sys
from pathlib import Path
from batchllm.errors import LockedError
from batchllm.journal.lock import OutputLock
print("ready", flush=True)
lock = None
for line in sys.stdin:
    if line == "release\\n":
        if lock is not None:
            lock.release()
        print("released", flush=True)
        continue
    try:
        lock = OutputLock.acquire(Path(line.strip()), about={})
        print("held", flush=True)
    except LockedError:
        lock = None
        print("refused", flush=True)
"""


def test_of_two_that_lock_at_once_fifty_times_one_holds_and_one_is_refused(out):
    command = [sys.executable, "-c", RACER]
    racers = [
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, text=True, bufsize=1
        )
        for _ in range(2)
    ]

    def both(line):
        for racer in racers:
            racer.stdin.write(line)
        return sorted(racer.stdout.readline().strip() for racer in racers)

    try:
        assert both("") == ["ready", "ready"]
        for turn in range(50):
            assert both(f"{out}-{turn % 5}\n") == ["held", "refused"]
            assert both("release\n") == ["released", "released"]
    finally:
        for racer in racers:
            racer.kill()
            racer.communicate()


def test_the_lock_is_free_once_its_holder_was_killed(out, holder):
    with pytest.raises(LockedError):
        OutputLock.acquire(out, about={})
    holder.kill()
    holder.wait()
    OutputLock.acquire(out, about={}).release()


def test_a_second_lock_in_the_same_process_is_refused(out):
    with OutputLock.acquire(out, about={}), pytest.raises(LockedError):
        OutputLock.acquire(out, about={})


def test_a_released_lock_can_be_taken_again_and_its_file_stays(out):
    lock = OutputLock.acquire(out, about={})
    lock.release()
    lock.release()
    assert (out / ".batchllm" / "lock").exists()
    OutputLock.acquire(out, about={}).release()


def test_a_lock_file_that_somebody_removed_is_made_anew(out):
    OutputLock.acquire(out, about={}).release()
    (out / ".batchllm" / "lock").unlink()
    with OutputLock.acquire(out, about={}), pytest.raises(LockedError):
        OutputLock.acquire(out, about={})


def test_a_lock_on_a_file_that_was_replaced_meanwhile_is_no_lock(tmp_path):
    path = tmp_path / "lock"
    with path.open("w") as file:
        assert is_current(file.fileno(), path)
        path.unlink()
        assert not is_current(file.fileno(), path)
        path.touch()
        assert not is_current(file.fileno(), path)


def test_the_descriptor_is_not_inherited_by_child_processes(out):
    with OutputLock.acquire(out, about={}):
        listing = "import os; print([os.readlink(f'/proc/self/fd/{fd}') for fd in (3, 4, 5, 6, 7, 8, 9)"
        listing += " if os.path.lexists(f'/proc/self/fd/{fd}')])"
        seen = subprocess.run(
            [sys.executable, "-c", listing], capture_output=True, text=True, check=True, close_fds=False
        )
    assert "lock" not in seen.stdout


def test_folders_are_private_whatever_the_umask(out):
    before = os.umask(0)
    try:
        OutputLock.acquire(out, about={}).release()
    finally:
        os.umask(before)
    state = out / ".batchllm"
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    assert stat.S_IMODE((state / "lock").stat().st_mode) == 0o600


def test_nothing_but_the_lock_stays_behind(out):
    OutputLock.acquire(out, about={}).release()
    found = sorted(path.relative_to(out).as_posix() for path in out.rglob("*"))
    assert found == [".batchllm", ".batchllm/lock", "failures", "output", "usage"]


def test_what_a_killed_probe_left_does_not_matter(out):
    OutputLock.acquire(out, about={}).release()
    for folder in (out / ".batchllm", out / "output", out):
        (folder / ".batchllm-probe").write_text("left over")
    OutputLock.acquire(out, about={}).release()
    assert not list(out.rglob(".batchllm-probe"))


@pytest.mark.parametrize("name", [".batchllm", "output", "failures", "usage"])
def test_a_symbolic_link_in_place_of_a_folder_is_refused(out, tmp_path, name):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    out.mkdir()
    (out / name).symlink_to(elsewhere)
    with pytest.raises(OutputError, match="symbolic link"):
        OutputLock.acquire(out, about={})
    assert list(elsewhere.iterdir()) == []


def test_a_symbolic_link_in_place_of_the_lock_is_refused(out, tmp_path):
    target = tmp_path / "precious"
    target.write_text("precious")
    (out / ".batchllm").mkdir(parents=True)
    (out / ".batchllm" / "lock").symlink_to(target)
    with pytest.raises(OutputError, match="symbolic link"):
        OutputLock.acquire(out, about={})
    assert target.read_text() == "precious"


def test_an_output_below_a_file_cannot_be_created(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot create") as caught:
        OutputLock.acquire(tmp_path / "file" / "out", about={})
    assert caught.value.exit_code == 73
    assert f"{tmp_path / 'file'} is a file" in caught.value.message
    assert "remove it" in caught.value.remedy


@pytest.mark.parametrize("name", ["", "output", ".batchllm"])
def test_a_file_in_the_way_is_named(out, name):
    (out / name).parent.mkdir(parents=True, exist_ok=True)
    (out / name).write_text("precious")
    with pytest.raises(OutputError) as caught:
        OutputLock.acquire(out, about={})
    assert f"{out / name} is a file" in caught.value.message
    assert "remove it" in caught.value.remedy
    assert "hard links" not in str(caught.value)
    assert (out / name).read_text() == "precious"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become someone who may not write")
@pytest.mark.parametrize("closed", ["out/.batchllm", "out", ""])
def test_a_folder_that_may_not_be_written_is_an_output_error(closed):
    with tempfile.TemporaryDirectory() as name:  # not pytest's, which nobody else may enter
        folder = Path(name)
        folder.chmod(0o755)
        OutputLock.acquire(folder / "out", about={}).release()
        (folder / closed).chmod(0)
        done = subprocess.run(
            [sys.executable, "-c", FORBIDDEN, str(folder / "out")],
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
        )
        (folder / closed).chmod(0o700)
    lines = done.stdout.splitlines()
    assert len(lines) == 4, done.stderr
    for line in lines:
        kind, message, remedy = line.split("|")
        assert kind in ("OutputError", "StorageError")
        assert name in message
        assert "permission" in remedy


def test_an_output_on_a_file_system_that_cannot_be_written_is_refused():
    with pytest.raises(OutputError):
        OutputLock.acquire(Path("/proc/out"), about={})


def test_a_holder_that_wrote_nothing_yet_is_another_process(out):
    with OutputLock.acquire(out, about={}) as lock:
        lock.path.write_bytes(b"")
        with pytest.raises(LockedError, match="held by another process"):
            OutputLock.acquire(out, about={})


def test_who_holds_it_is_seen_without_taking_anything(out, holder):
    held = holder_of(out)
    assert (held.pid, held.started) == (holder.pid, "noon")
    holder.kill()
    holder.wait()
    assert holder_of(out) is None


def test_nobody_holds_what_is_not_there(tmp_path):
    assert holder_of(tmp_path / "none") is None


def test_those_who_share_it_hold_it_not(out):
    OutputLock.acquire(out, about={}).release()
    with shared_lock(out):
        assert holder_of(out) is None


def test_a_start_that_meets_a_glance_looks_again(out):
    OutputLock.acquire(out, about={}).release()
    glance = os.open(out / ".batchllm" / "lock", os.O_RDONLY)
    fcntl.flock(glance, fcntl.LOCK_SH)
    timer = threading.Timer(0.1, os.close, (glance,))
    timer.start()
    with OutputLock.acquire(out, about={}):
        timer.join()
        assert holder_of(out).pid == os.getpid()


def test_a_start_does_not_wait_for_those_who_stay(out):
    OutputLock.acquire(out, about={}).release()
    with shared_lock(out), pytest.raises(LockedError, match="is being verified"):
        OutputLock.acquire(out, about={})


def test_whoever_asks_without_end_keeps_no_run_from_starting(out):
    OutputLock.acquire(out, about={}).release()
    with subprocess.Popen([sys.executable, "-c", ASKER, str(out)], stdout=subprocess.PIPE, cwd=ROOT) as asker:
        assert asker.stdout.readline() == b"asking\n"
        for _ in range(100):
            OutputLock.acquire(out, about={}).release()
        asker.kill()
