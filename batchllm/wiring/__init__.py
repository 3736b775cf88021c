"""The one place that picks the real parts, and finds every fault of a job before anything is spent.

`check` reads the catalogue, the environment and the first rows, and opens nothing that it would have to close;
`build_lanes` makes the parts that send.
"""

from batchllm.wiring.building import Frame, build_lanes
from batchllm.wiring.check import CheckedJob, check
from batchllm.wiring.lanes import LanePlan, mark_simulated

__all__ = ["CheckedJob", "Frame", "LanePlan", "build_lanes", "check", "mark_simulated"]
