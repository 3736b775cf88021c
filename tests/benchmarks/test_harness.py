"""Ratios are taken within a turn; a child is accounted for alone and ended when its time is up."""

import sys
from pathlib import Path

import pytest

from benchmarks.harness import (
    CommandError,
    Cores,
    Ended,
    Usage,
    choose_cores,
    in_turns,
    measured,
    paired_ratio,
    run_child,
)

ROOT = Path(__file__).parents[2]


def test_a_ratio_is_the_median_of_those_within_each_turn() -> None:
    # Medians of each side would say 25 / 10: the second turn was slow for both, the third for one.
    assert paired_ratio([20.0, 90.0, 25.0], [10.0, 30.0, 5.0]) == 3.0


def test_turns_that_do_not_match_are_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        paired_ratio([1.0, 2.0], [1.0])


def test_measures_take_turns() -> None:
    order: list[str] = []
    found = in_turns(2, one=lambda: order.append("one"), two=lambda: order.append("two"))
    assert order == ["one", "two", "one", "two"]
    assert {name: len(values) for name, values in found.items()} == {"one": 2, "two": 2}


@pytest.mark.parametrize(
    ("allowed", "cores"),
    [({0, 1}, Cores(0, 1)), ({7, 3, 5}, Cores(3, 5)), ({4}, Cores(None, None)), (set(), Cores(None, None))],
)
def test_client_and_server_have_a_core_each_or_none_is_pinned(allowed: set[int], cores: Cores) -> None:
    assert choose_cores(allowed) == cores


def test_what_was_pinned_is_said() -> None:
    assert "core 3" in Cores(3, 5).text()
    assert "core 5" in Cores(3, 5).text()
    assert "nothing is pinned" in Cores(None, None).text()


@pytest.mark.parametrize(
    ("stdout", "stderr", "line"),
    [
        ("done\n", "Traceback\nValueError: no\n\n", "ValueError: no"),
        ("first\nlast \n", "", "last"),
        ("", " \n", "it said nothing"),
    ],
)
def test_the_last_line_tells_what_went_wrong(stdout: str, stderr: str, line: str) -> None:
    assert Ended(1, None, stdout, stderr).last_line == line


def test_cpu_is_given_in_microseconds_a_row() -> None:
    assert Usage(wall_s=9.0, cpu_s=0.5, peak_mb=1.0).cpu_us(1000) == 500.0


def test_a_child_gets_folder_and_environment_and_is_accounted_for(tmp_path: Path) -> None:
    code = "import os; print(os.getcwd(), os.environ['COLOUR']); x = bytearray(60 << 20); raise SystemExit(3)"
    ended = run_child([sys.executable, "-c", code], folder=tmp_path, environ={"COLOUR": "red"})
    assert ended.code == 3
    assert ended.stdout == f"{tmp_path} red\n"
    assert ended.usage is not None
    assert ended.usage.cpu_s > 0
    assert ended.usage.peak_mb > 60


def test_a_child_s_peak_does_not_hold_what_the_harness_has(tmp_path: Path) -> None:
    held = bytearray(200 << 20)
    ended = run_child([sys.executable, "-S", "-c", "pass"], folder=tmp_path)
    assert ended.usage is not None
    assert ended.usage.peak_mb < 100
    assert held


def test_a_child_whose_time_is_up_is_ended(tmp_path: Path) -> None:
    ended = run_child([sys.executable, "-c", "import time; time.sleep(50)"], folder=tmp_path, timeout_s=0.2)
    assert (ended.code, ended.usage) == (None, None)


def test_a_command_that_fails_says_its_last_line(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="ended with 1: no such row"):
        measured([sys.executable, "-c", "raise SystemExit('no such row')"], folder=tmp_path)


def test_a_child_apart_gets_nothing_of_the_user_s(tmp_path: Path) -> None:
    code = "import os; print(sorted(os.environ.keys() - {'LC_CTYPE'}))"
    command = [sys.executable, "-c", code]
    ended = run_child(command, folder=tmp_path, environ={"PATH": "/bin"}, is_apart=True)
    assert ended.stdout == "['PATH']\n"


def entered(body: str, folder: Path) -> Ended:
    code = f"""
import os, signal
from benchmarks.harness import CommandError, entry
def main(argv):
    try:
        {body}
    finally:
        print("cleared", argv)
entry(main)
"""
    return run_child(
        [sys.executable, "-c", code, "--quick"], folder=folder, environ={"PYTHONPATH": str(ROOT)}
    )


def test_an_error_ends_the_command_with_its_message_alone(tmp_path: Path) -> None:
    ended = entered('raise CommandError("no row came back")', tmp_path)
    assert (ended.code, ended.stderr) == (1, "no row came back\n")


def test_a_sigterm_ends_what_was_started(tmp_path: Path) -> None:
    ended = entered("os.kill(os.getpid(), signal.SIGTERM)", tmp_path)
    assert (ended.code, ended.stdout) == (143, "cleared ['--quick']\n")
