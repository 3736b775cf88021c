"""Runs as processes of their own, to be killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from batchllm.simulate import SimulatedProvider


def start(folder: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "batchllm", "run", "job.yaml", "--quiet"],
        cwd=folder,
        env={**os.environ, "BATCHLLM_STATE_DIR": str(folder / "state")},
        stderr=subprocess.PIPE,
        text=True,
    )


def killed(folder: Path, book: SimulatedProvider, calls: int) -> int | None:
    """Start, and kill once so many more calls have come in; the exit code of a run that ended before."""
    before = book.ledger.accepted
    process = start(folder)
    try:
        while process.poll() is None and book.ledger.accepted < before + calls:
            time.sleep(0.002)
        if process.poll() is not None:
            return process.returncode
        process.send_signal(signal.SIGKILL)
        return None
    finally:
        process.communicate()
