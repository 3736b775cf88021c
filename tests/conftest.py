"""What all tests share: properties are judged by what they find, not by how fast the machine is at the moment."""

import os
import sys
import tempfile
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

#: Runs that tests start share their limits among themselves, never with the user's own.
os.environ["BATCHLLM_STATE_DIR"] = tempfile.mkdtemp(prefix="batchllm-tests-")

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
