"""Runs that kill themselves at a chosen moment."""

import os
import subprocess
import sys
from pathlib import Path

#: A run that kills itself before it does what the audit event says to a file of this name for the n-th time.
_KILLS_ITSELF = """
import fnmatch, os, signal, sys

event, pattern, left = sys.argv[1], sys.argv[2], int(sys.argv[3])

def hook(name, args):
    global left
    if name == event and fnmatch.fnmatch(os.path.basename(os.fsdecode(args[1 if name == "os.rename" else 0])), pattern):
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(hook)
from batchllm.cli.main import main

main(["run", "job.yaml", "--quiet"])
"""


def killed_at(folder: Path, event: str, pattern: str, time: int = 1) -> int:
    """The exit code of a run that was to be killed there: of a rename its new name counts."""
    return subprocess.run(
        [sys.executable, "-c", _KILLS_ITSELF, event, pattern, str(time)],
        cwd=folder,
        env={**os.environ, "BATCHLLM_STATE_DIR": str(folder / "state")},
        capture_output=True,
        check=False,
        timeout=60,
    ).returncode
