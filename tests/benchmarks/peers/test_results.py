"""What a peer said and what the provider saw become figures; what went wrong is never guessed."""

import json

import pytest

from benchmarks.harness import Ended, Usage
from benchmarks.peers.results import (
    PeerError,
    Seen,
    answered,
    free_line,
    problem,
    seen,
    share_of_ideal,
)

USAGE = Usage(1.0, 1.0, 1.0)


def usage(cpu_s: float, wall_s: float = 1.0, peak_mb: float = 100.0) -> Usage:
    return Usage(wall_s, cpu_s, peak_mb)


@pytest.mark.parametrize(
    "stdout",
    ['{"answered": 7}\n', 'progress\n{"answered": 3}\n{"answered": 7}\nbye\n', '{"answered": 7}\n[1]\n{}\n'],
)
def test_the_last_line_that_tells_is_the_answer(stdout: str) -> None:
    assert answered(Ended(0, USAGE, stdout, "a warning"), 60.0) == 7


@pytest.mark.parametrize(
    ("ended", "said"),
    [
        (Ended(None, None, '{"answered": 7}', ""), "did not end within 60 s"),
        (Ended(1, USAGE, '{"answered": 7}', "Traceback\nOSError: no\n"), "ended with 1: OSError: no"),
        (Ended(-9, USAGE, "", ""), "ended with -9: it said nothing"),
        (Ended(0, USAGE, "done\n", ""), "ended without saying how many rows it answered: done"),
        (Ended(0, USAGE, '{"answered": "7"}\n', ""), "ended without saying"),
    ],
)
def test_what_went_wrong_is_said_with_the_last_line(ended: Ended, said: str) -> None:
    with pytest.raises(PeerError, match=said):
        answered(ended, 60.0)


def test_a_problem_is_one_short_line_without_this_machine_s_paths() -> None:
    assert problem("no such file:\n  '/srv/data/rows.jsonl'") == "no such file: 'rows.jsonl'"
    assert (
        problem("at http://127.0.0.1:80/v1/chat/completions") == "at http://127.0.0.1:80/v1/chat/completions"
    )
    assert len(problem("x" * 500)) == 110


def ledger(*lines: tuple[float, str]) -> list[str]:
    return [json.dumps({"at_s": at_s, "verdict": verdict, "status": 200}) for at_s, verdict in lines]


def test_the_ledger_is_counted() -> None:
    lines = ledger((2.0, "accepted"), (1.0, "accepted"), (1.5, "refused"), (0.5, "rejected"))
    assert seen(lines) == Seen((1.0, 2.0), refused=1, rejected=1)


def test_the_share_is_the_rate_between_the_first_and_the_last() -> None:
    at_s = [number / 50 for number in range(1001)]
    assert share_of_ideal(at_s, rpm=3000.0) == pytest.approx(1.001)
    assert share_of_ideal([at * 2 for at in at_s], rpm=3000.0) == pytest.approx(0.5005)


@pytest.mark.parametrize("at_s", [[], [1.0], [1.0, 1.0]])
def test_there_is_no_rate_without_a_time_between(at_s: list[float]) -> None:
    assert share_of_ideal(at_s, rpm=60.0) is None


def test_starting_up_is_taken_off_both_sides() -> None:
    line = free_line(
        (110, 1010, 10),
        peer=[usage(3.0, 5.0), usage(5.0, 9.0, 250.0), usage(4.0, 6.0)],
        start=[usage(2.0, 4.0), usage(1.0, 1.0), usage(2.0, 4.0)],
        bare=[usage(1.5)] * 3,
        bare_start=[usage(0.5)] * 3,
    )
    assert line["cpu_us"] == pytest.approx(20_000.0)  # (4 - 2) s over 100 rows
    assert line["bare_us"] == pytest.approx(1_000.0)
    assert line["ratio"] == pytest.approx(20.0)
    assert line["rows_s"] == pytest.approx(50.0)
    assert line["core_share"] == pytest.approx(1.0)
    assert (line["start_s"], line["peak_mb"]) == (2.0, 250.0)


def test_a_run_that_took_no_longer_than_a_start_tells_nothing() -> None:
    with pytest.raises(PeerError, match="give more --rows"):
        free_line(
            (110, 110, 10), peer=[usage(1.0)], start=[usage(1.0)], bare=[usage(2.0)], bare_start=[usage(1.0)]
        )
