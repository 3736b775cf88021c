"""What all tests share: properties are judged by what they find, not by how fast the machine is at the moment."""

import atexit
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

#: Files of tests lie in memory where it has room: each run waits for some twenty fsyncs, of milliseconds each. What a
#: killed process wrote is the kernel's, on a disk or not; only a power cut would tell the difference.
_MEMORY, _ROOM_BYTES = Path("/dev/shm"), 2 << 30
if os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free >= _ROOM_BYTES:
    tempfile.tempdir = str(_MEMORY)

#: Runs that tests start share their limits among themselves, never with the user's own.
os.environ["BATCHLLM_STATE_DIR"] = tempfile.mkdtemp(prefix="batchllm-tests-")
atexit.register(shutil.rmtree, os.environ["BATCHLLM_STATE_DIR"], ignore_errors=True)

#: Pages of runs have no drawings, as where vl-convert is not installed: it is a process of a second for each page. The
#: fixture `drawings` has it back.
sys.modules["vl_convert"] = None  # type: ignore[assignment]

settings.register_profile("batchllm", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("batchllm")


@pytest.fixture(scope="module")
def drawings() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        patched.delitem(sys.modules, "vl_convert")
        yield
