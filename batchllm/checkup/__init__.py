"""What can be known of a job's lanes before it runs: key, model, one short answer, limits.

findings   what was found, step by step, and the exit code of it      lanes   each lane asked
beside     lanes that a consensus asks beside the voters
"""

from batchllm.checkup.beside import Rehearsal, rehearsals
from batchllm.checkup.findings import Finding, LaneReport, State, Step, overall
from batchllm.checkup.lanes import check_lanes

__all__ = ["Finding", "LaneReport", "Rehearsal", "State", "Step", "check_lanes", "overall", "rehearsals"]
