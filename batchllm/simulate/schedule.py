"""What a simulated provider is like, and from when on: a schedule of changes, laid one over the other."""

from itertools import pairwise
from typing import NamedTuple, TypeVar

from batchllm.errors import Fault
from batchllm.simulate.faults import latency_faults
from batchllm.spec.lanes import Simulation
from batchllm.spec.strict import Strict

Section = TypeVar("Section", bound=Strict)


class Phase(NamedTuple):
    """The provider from `at_s` on, in seconds since the first call."""

    at_s: float
    simulation: Simulation


def phases(simulation: Simulation) -> list[Phase]:
    """The first is the provider as it starts; each further one differs in what its change names."""
    found = [Phase(0.0, simulation)]
    for change in simulation.schedule:
        before = found[-1].simulation
        after = {
            "limits": _changed(before.limits, change.limits),
            "latency": _changed(before.latency, change.latency),
            "faults": _changed(before.faults, change.faults),
        }
        found.append(Phase(change.at_s, before.model_copy(update=after)))
    return found


class Timetable:
    """Goes through the phases as time passes; the first call starts it."""

    def __init__(self, simulation: Simulation) -> None:
        self._coming = phases(simulation)[1:]
        self._start_s: float | None = None

    def turn(self, now_s: float) -> Simulation | None:
        """What the provider is like from now on; None when nothing has changed since the last question."""
        if self._start_s is None:
            self._start_s = now_s
        latest = None
        while self._coming and self._coming[0].at_s <= now_s - self._start_s:
            latest = self._coming.pop(0).simulation
        return latest


def schedule_faults(simulation: Simulation, path: str = "schedule") -> list[Fault]:
    """Changes out of order, and latencies that no log-normal has."""
    faults: list[Fault] = []
    for number, (before, phase) in enumerate(pairwise(phases(simulation))):
        if phase.at_s < before.at_s:
            place = f"{path}.{number}.at_s"
            faults.append(Fault(place, "is before the change above it", "put the changes in order of time"))
        faults += latency_faults(phase.simulation, f"{path}.{number}.latency")
    return faults


def _changed(before: Section, change: Section | None) -> Section:
    if change is None:
        return before
    return before.model_copy(update={name: getattr(change, name) for name in change.model_fields_set})
