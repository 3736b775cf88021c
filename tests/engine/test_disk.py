"""Runs whose disk is taken away from them. The simulator's books are the bill: what they hold has to be kept, once."""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import disk_rig
import job_rig as rig
import pytest
from process_rig import BOUND_S, Process, started, wait_for, wait_until

from batchllm.errors import FullDiskError
from batchllm.journal import Journal
from batchllm.simulate import SimulatedProvider

ROWS = 900
#: Long enough that a commit of what is in flight needs pages that the disk no longer has.
ANSWER = "an answer of some length " * 100

needs_mounts = pytest.mark.skipif(not disk_rig.has_namespaces(), reason="needs a mount of its own")
needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")


@dataclass
class Rehearsal:
    """A job whose output lies in `place`, the books of its provider, and what a run of it needs."""

    folder: Path
    place: Path
    job: Path
    book: SimulatedProvider
    before: list[str] = field(default_factory=list)

    def start(self) -> AbstractContextManager[Process]:
        return started(self.job, before=self.before, **self.environ)

    @property
    def environ(self) -> dict[str, str]:
        return {"NO_COLOR": "1", "BATCHLLM_SPILL_DIR": str(self.spill)}

    @property
    def spill(self) -> Path:
        return self.folder / "spill"

    @property
    def billed(self) -> int:
        return sum(self.book.ledger.billed.values())

    def accepted(self, count: int) -> None:
        wait_for(self.book, count)

    def run(self) -> tuple[int | None, str]:
        """A run to its end: code and stderr."""
        with self.start() as run:
            return ended(run)


@contextmanager
def rehearsal(folder: Path, place: Path, **more: object) -> Iterator[Rehearsal]:
    rig.write_rows(folder / "rows.jsonl", ROWS)
    spec = {"latency": {"median_s": 0.03, "p99_s": 0.1}, "answers": [{"pattern": "text", "reply": ANSWER}]}
    with rig.served(spec) as (urls, books):
        job = folder / "job.yaml"
        lane = rig.lane(urls[0], "one", limits={"concurrency": 32})
        job.write_text(json.dumps(rig.job(place, [lane], **more)), "utf-8")
        yield Rehearsal(folder, place, job, books[0])


def ended(process: Process) -> tuple[int | None, str]:
    try:
        _, said = process.communicate(timeout=BOUND_S)
    finally:
        process.kill()
    return process.returncode, said


def assert_whole(place: Path) -> None:
    output = rig.table(place, "output")
    assert output["row"].to_list() == list(range(ROWS))
    assert set(output["content"]) == {ANSWER}
    usage = rig.table(place, "usage")
    assert usage.height == ROWS
    assert set(usage["billed"]) == {"yes"}
    assert json.loads((place / "out" / "manifest.json").read_text())["complete"] is True


@pytest.fixture
def small(tmp_path: Path) -> Iterator[disk_rig.SmallDisk]:
    with disk_rig.small_disk(tmp_path / "disk", 16) as disk:
        yield disk


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[Rehearsal]:
    with rehearsal(tmp_path, tmp_path) as made:
        yield made


def on(disk: disk_rig.SmallDisk, made: Rehearsal) -> subprocess.Popen[str]:
    return disk.batchllm("run", str(made.job), **made.environ)


@needs_mounts
def test_a_disk_filled_to_the_brim_pauses_the_run_which_goes_on_alone_and_pays_nothing_twice(
    tmp_path: Path, small: disk_rig.SmallDisk
) -> None:
    with rehearsal(tmp_path, small.place) as made, on(small, made) as run:
        made.accepted(60)  # before the WAL is reused, and needs no space any more
        small.fill()
        ballast = small.seen / "out" / ".batchllm" / "ballast"
        wait_until(lambda: not ballast.exists())
        accepted = made.book.ledger.accepted
        time.sleep(1.5)
        assert made.book.ledger.accepted == accepted
        assert run.poll() is None
        small.clear()
        code, said = ended(run)
        assert code == 0, said
        assert said.count("paused: the disk of") == 1
        assert said.count("going on") == 1
        assert made.billed == ROWS
        assert_whole(small.seen)
        assert not ballast.exists()


@needs_mounts
def test_a_disk_that_stays_full_ends_the_run_with_all_that_was_paid_for_on_it(
    tmp_path: Path, small: disk_rig.SmallDisk
) -> None:
    with rehearsal(tmp_path, small.place, disk_wait_s=1) as made:
        with on(small, made) as run:
            made.accepted(60)  # before the WAL is reused, and needs no space any more
            small.fill()
            code, said = ended(run)
        assert code == 74, said
        assert "are needed" in said
        assert "free at least" in said
        assert not made.spill.exists()
        paid = made.billed
        assert 60 <= paid < ROWS
        small.clear()
        with on(small, made) as run:
            assert ended(run)[0] == 0
        assert made.billed == ROWS
        assert_whole(small.seen)


@needs_mounts
def test_a_neighbour_that_takes_the_ballast_as_well_costs_nothing_that_was_paid_for(
    tmp_path: Path, small: disk_rig.SmallDisk
) -> None:
    with rehearsal(tmp_path, small.place, disk_wait_s=2) as made:
        with on(small, made) as run:
            made.accepted(60)
            (small.seen / "out" / ".batchllm" / "ballast").unlink()
            small.fill()
            code, said = ended(run)
        assert code == 74, said
        assert "the next start takes them in" in said
        assert [path.stat().st_mode & 0o777 for path in made.spill.iterdir()] == [0o600]
        small.clear()
        with on(small, made) as run:
            code, said = ended(run)
        assert code == 0, said
        assert "answers were taken in from" in said
        assert list(made.spill.iterdir()) == []
        assert made.billed == ROWS
        assert_whole(small.seen)


@needs_mounts
def test_ctrl_c_ends_a_pause(tmp_path: Path, small: disk_rig.SmallDisk) -> None:
    with rehearsal(tmp_path, small.place) as made:
        with on(small, made) as run:
            made.accepted(300)
            with (small.seen / "neighbour").open("wb") as file:
                file.write(bytes(small.free_bytes - (600 << 10)))  # below the floor, and not quite full
            assert run.stderr is not None
            while "paused" not in run.stderr.readline():
                pass
            run.send_signal(signal.SIGINT)
            code, said = ended(run)
        assert code in (74, 130), said  # 74: the parts did not fit any more
        small.clear()
        with on(small, made) as run:
            assert ended(run)[0] == 0
        assert made.billed == ROWS
        assert_whole(small.seen)


@needs_mounts
def test_a_full_disk_is_refused_at_the_start_with_the_bytes_that_are_needed(
    tmp_path: Path, small: disk_rig.SmallDisk
) -> None:
    with rehearsal(tmp_path, small.place) as made:
        small.fill()
        with on(small, made) as run:
            code, said = ended(run)
        assert code == 74
        assert "0 bytes are free, 1,639 KiB are needed" in said, said
        assert made.book.ledger.accepted == 0


@needs_mounts
def test_a_disk_that_is_mounted_read_only_is_refused_at_the_start(
    tmp_path: Path, small: disk_rig.SmallDisk
) -> None:
    with rehearsal(tmp_path, small.place) as made:
        small.remount("ro")
        with on(small, made) as run:
            code, said = ended(run)
        assert code == 73
        assert "read-only" in said
        assert made.book.ledger.accepted == 0


def injected(made: Rehearsal, injection: str) -> None:
    call = injection.partition(":")[0]
    made.before = ["strace", "-f", "-qq", "--seccomp-bpf", "-o", os.devnull]
    made.before += ["-e", f"trace={call}", "-e", f"inject={injection}"]


@needs_strace
@pytest.mark.parametrize("nth", [40, 60])
def test_a_failed_fsync_ends_the_run_and_what_was_paid_for_is_taken_in_by_the_next(
    plain: Rehearsal, nth: int
) -> None:
    injected(plain, f"fdatasync:error=EIO:when={nth}+")
    code, said = plain.run()
    assert code == 74, said
    assert "SQLITE_IOERR_FSYNC" in said
    assert "the next start takes them in" in said
    paid = plain.billed
    plain.before = []
    code, said = plain.run()
    assert code == 0, said
    assert "answers were taken in from" in said
    assert paid < ROWS
    assert plain.billed == ROWS
    assert_whole(plain.place)


@needs_strace
def test_a_quota_that_is_used_up_pauses_the_run_like_a_full_disk(plain: Rehearsal) -> None:
    injected(plain, "pwrite64:error=EDQUOT:when=400..405")
    code, said = plain.run()
    assert code == 0, said
    assert said.count("paused: the disk of") >= 1
    assert plain.billed == ROWS
    assert_whole(plain.place)


@needs_strace
def test_a_slow_disk_slows_the_run_and_is_said_once(plain: Rehearsal) -> None:
    injected(plain, "fdatasync:delay_enter=2100000:when=20..21")
    code, said = plain.run()
    assert code == 0, said
    assert said.count("is slow: a commit took") == 1
    assert plain.billed == ROWS
    assert_whole(plain.place)


def test_a_file_size_limit_ends_the_run_and_costs_nothing(plain: Rehearsal) -> None:
    plain.before = ["sh", "-c", 'ulimit -f 1200; exec "$@"', "sh"]  # in blocks of 512 bytes
    code, said = plain.run()
    assert code == 74, said
    assert "file size limit" in said
    plain.before = []
    code, said = plain.run()
    assert code == 0, said
    assert plain.billed == ROWS
    assert_whole(plain.place)


def test_an_output_folder_that_is_removed_during_a_run_ends_it(plain: Rehearsal) -> None:
    with plain.start() as run:
        plain.accepted(200)
        shutil.rmtree(plain.place / "out")
        code, said = ended(run)
    assert code == 74, said
    assert "was moved, removed or replaced while the run went on" in said
    assert plain.billed < ROWS


def test_an_output_folder_that_is_moved_away_and_back_costs_nothing(plain: Rehearsal) -> None:
    with plain.start() as run:
        plain.accepted(200)
        (plain.place / "out").rename(plain.place / "elsewhere")
        code, said = ended(run)
    assert code == 74, said
    assert "move it back and start again" in said
    (plain.place / "elsewhere").rename(plain.place / "out")
    assert plain.run()[0] == 0
    assert plain.billed == ROWS
    assert_whole(plain.place)


def test_a_folder_of_parts_that_is_removed_during_a_run_leaves_all_in_the_journal(plain: Rehearsal) -> None:
    with plain.start() as run:
        plain.accepted(200)
        shutil.rmtree(plain.place / "out" / "output")
        code, said = ended(run)
    assert code == 74, said
    assert str(plain.place / "out" / "output") in said
    assert plain.run()[0] == 0
    assert plain.billed == ROWS
    assert_whole(plain.place)


@pytest.mark.timeout(20)
def test_a_disk_that_is_full_for_the_last_line_only_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever meets it first, a commit, a part, or a note of the input: nothing is tried again without a pause."""
    rig.write_rows(tmp_path / "rows.jsonl", 5)
    met = []

    def full(_journal: Journal) -> None:
        met.append(1)
        raise FullDiskError("no space left")

    with rig.served({}) as (urls, books):
        spec = rig.job(tmp_path, [rig.lane(urls[0], "local")], disk_wait_s=0)
        with monkeypatch.context() as patched:
            patched.setattr(Journal, "note_input_read_whole", full)
            with pytest.raises(FullDiskError):
                rig.run(tmp_path, spec)
        assert len(met) == 1
        assert rig.run(tmp_path, spec).is_complete
        assert books[0].ledger.accepted == 5
