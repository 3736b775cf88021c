"""What all tests share: properties are judged by what they find, not by how fast the machine is at the moment."""

import os
import tempfile

from hypothesis import HealthCheck, settings

#: Runs that tests start share their limits among themselves, never with the user's own.
os.environ["BATCHLLM_STATE_DIR"] = tempfile.mkdtemp(prefix="batchllm-tests-")

settings.register_profile("batchllm", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("batchllm")
