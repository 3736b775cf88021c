"""The scenarios of saturation by name: what the provider is like, what the run is told, and what must come out.

Each is a function of a stage. The figures beside `low` and `high` are the ones to reach; nothing in a scenario waits on
anything but the runs themselves.
"""

from collections.abc import Callable, Mapping

from benchmarks import steady, upheavals
from benchmarks.outcomes import Outcome
from benchmarks.stage import Stage

SCENARIOS: Mapping[str, Callable[[Stage], Outcome]] = {
    play.__name__: play
    for play in (
        steady.rpm_told,
        steady.rpm_told_strict,
        steady.tpm_told,
        steady.three_lanes_headers,
        steady.blind_retry_after,
        steady.blind_bare,
        steady.blind_strict,
        steady.blind_concurrency,
        upheavals.halved_restored_told,
        upheavals.halved_restored_headers,
        upheavals.halved_restored_blind,
        upheavals.halved_restored_strict,
        upheavals.two_processes,
        upheavals.restart_no_burst,
        upheavals.latency_x10,
        upheavals.stalls,
        upheavals.spread,
    )
}
