"""What strace's log says, and what a kill's books say."""

from pathlib import Path

import pytest

from benchmarks.durability.__main__ import PARTS, main
from benchmarks.durability.checker import Bill, Purchase, Told, read_purchases
from benchmarks.durability.matrix import Outcome
from benchmarks.durability.moments import again
from benchmarks.durability.tracing import Fault, points, read_calls
from benchmarks.harness import BenchmarkError

LOG = """\
10 openat(AT_FDCWD</home/x>, "/usr/lib/a.py", O_RDONLY|O_CLOEXEC) = 3</usr/lib/a.py>
10 openat(AT_FDCWD</home/x>, "/home/x/out/lock", O_RDWR|O_CREAT, 0600) = 3</home/x/out/lock>
10 pwrite64(4</home/x/out/journal.db>, "\\0\\"<", 8, 0) = 8
11 pwrite64(5</home/x/out/journal.db-wal>, ""..., 8, 0 <unfinished ...>
10 link("/home/x/out/a", "/home/x/out/b") = 0
11 <... pwrite64 resumed>)                 = 8
11 pwrite64(5</home/x/out/journal.db-wal>, ""..., 8, 0) = -1 ENOSPC (No space left on device) (INJECTED)
10 pwrite64(4</home/x/out/journal.db>, "", 8, 0) = 8
11 +++ exited with 0 +++
"""


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log"
    path.write_text(LOG, "utf-8")
    return path


def test_calls_are_counted_by_thread_and_name_and_know_their_file(log: Path) -> None:
    assert [(call.thread, call.name, call.nth, call.path) for call in read_calls(log)] == [
        (10, "openat", 1, "/usr/lib/a.py"),
        (10, "openat", 2, "/home/x/out/lock"),
        (10, "pwrite64", 1, "/home/x/out/journal.db"),
        (11, "pwrite64", 1, "/home/x/out/journal.db-wal"),
        (10, "link", 1, "/home/x/out/a"),
        (11, "pwrite64", 2, "/home/x/out/journal.db-wal"),
        (10, "pwrite64", 2, "/home/x/out/journal.db"),
    ]


def test_a_point_is_the_call_that_comes_to_its_number_first_and_creates_where_it_opens(log: Path) -> None:
    calls = read_calls(log)
    found = [(call.thread, call.name, call.nth) for call in points(calls, "first request")]
    assert found == [(10, "openat", 2), (10, "pwrite64", 1), (10, "link", 1), (11, "pwrite64", 2)]
    assert [call.thread for call in points(calls, "start")] == [10, 10, 10]


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault("fsync", 3), "inject=fsync:signal=SIGKILL:when=3"),
        (Fault("pwrite64", 7, "ENOSPC", lasts=True), "inject=pwrite64:error=ENOSPC:when=7+"),
    ],
)
def test_a_fault_is_said_as_strace_wants_it(fault: Fault, said: str) -> None:
    assert str(fault) == said


def purchase(text: str, at_s: float) -> Purchase:
    return Purchase(text, at_s, 0.3, 10, 5)


def test_of_what_is_bought_again_it_is_told_what_had_been_answered() -> None:
    before = [purchase("kept", 1.0), purchase("lost", 1.1), purchase("out", 1.9)]
    after = [*before, purchase("lost", 5.0), purchase("out", 5.0), purchase("new", 5.1)]
    outcome = Outcome(True, -9, Bill(2, 0.0, 0), Told(), ())
    found = again(before, after, 2.0, outcome)
    assert (found.bought, found.answered, found.in_flight) == (2, 1, 1)


def test_a_ledger_is_read_from_a_byte_on_and_to_its_last_whole_line(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    line = '{"at_s": 1.0, "verdict": "%s", "prompt_tokens": %d, "completion_tokens": 2, "latency_s": 0.1, "text": "%s"}'
    lines = [line % ("accepted", 4, "a"), line % ("refused", 4, "b"), line % ("accepted", 0, "c")]
    lines += [line % ("accepted", 4, "d")]
    path.write_text("\n".join(lines) + "\n" + lines[0][:20], "utf-8")
    assert [one.text for one in read_purchases(path)] == ["a", "d"]
    assert [one.text for one in read_purchases(path, len(lines[0]) + 1)] == ["d"]
    assert read_purchases(tmp_path / "none") == []


def test_an_unknown_part_is_refused_with_the_known_ones() -> None:
    with pytest.raises(BenchmarkError, match=f"no part matrices; there are: {', '.join(PARTS)}"):
        main(["matrices"])
