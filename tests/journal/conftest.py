"""The shared parts of these tests, loaded by path: test folders are not packages."""

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

HERE = Path(__file__).parent


def _load() -> ModuleType:
    name = "batchllm_journal_kit"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, HERE / "kit.py")
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


@pytest.fixture(scope="session")
def kit() -> ModuleType:
    return _load()


@pytest.fixture
def out(tmp_path: Path) -> Iterator[Path]:
    """Where an output folder may come to be: in memory where that is possible.

    What a killed process wrote is the kernel's, on a disk or not; only a power cut would tell the difference.
    """
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path / "out"
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder) / "out"


@pytest.fixture(scope="session")
def crash():
    """`crash(**scenario)` runs it in a process of its own and returns the exit code, -9 when it was killed."""
    with subprocess.Popen(
        [sys.executable, str(HERE / "kit.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=HERE.parent.parent,
        env={"PYTHONPATH": str(HERE.parent.parent), "PATH": ""},
        text=True,
    ) as process:

        def run(**scenario: object) -> int:
            process.stdin.write(json.dumps(scenario) + "\n")
            process.stdin.flush()
            return int(process.stdout.readline())

        yield run
        process.stdin.close()
        process.wait(timeout=10)
