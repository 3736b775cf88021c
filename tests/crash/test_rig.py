"""Runs of the rig that do not end as they should."""

import signal
import subprocess

import pytest

from benchmarks.durability.rig import Ended, ended, expect_code
from benchmarks.harness import BenchmarkError


def test_a_run_that_hangs_is_killed_and_said_to_have_hung() -> None:
    process = subprocess.Popen(
        ["/bin/sh", "-c", "echo begun >&2; sleep 600"],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    run = ended(process, longest_s=0.2)
    assert (run.code, run.stderr, run.is_hung) == (-signal.SIGKILL, "begun\n", True)
    with pytest.raises(BenchmarkError, match="hung for"):
        expect_code(run, (0,))


def test_a_run_that_ends_by_itself_has_not_hung() -> None:
    process = subprocess.Popen(
        ["/bin/sh", "-c", "exit 3"], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert ended(process) == Ended(3, "")
