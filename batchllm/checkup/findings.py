"""What was found out about a lane, step by step."""

from dataclasses import dataclass
from enum import StrEnum

from batchllm.errors import ExitCode


class Step(StrEnum):
    """In this order; each makes the next one meaningful."""

    KEY = "key"  # one is found, and the provider accepts it
    MODEL = "model"  # the provider lists it
    CALL = "call"  # the first row is answered
    LIMITS = "limits"  # as the provider states them


class State(StrEnum):
    OK = "ok"
    FAILED = "failed"
    UNKNOWN = "unknown"  # there is no way to find out, or no leave


@dataclass(frozen=True, slots=True)
class Finding:
    """`exit_code` is OK unless the state is FAILED; `remedy` says what to do then."""

    step: Step
    state: State
    text: str
    remedy: str = ""
    exit_code: ExitCode = ExitCode.OK


@dataclass(frozen=True, slots=True)
class LaneReport:
    """`place`: of the lane in the job file."""

    place: str
    name: str
    provider: str
    model: str
    findings: tuple[Finding, ...]

    @property
    def exit_code(self) -> ExitCode:
        """A key that is refused explains all that fails after it."""
        return _first(tuple(finding.exit_code for finding in self.findings))

    @property
    def ok(self) -> bool:
        return self.exit_code is ExitCode.OK


def overall(reports: tuple[LaneReport, ...]) -> ExitCode:
    """0 when every lane would answer; 77 before 69, for a key is what is mended first."""
    return _first(tuple(report.exit_code for report in reports))


def _first(codes: tuple[ExitCode, ...]) -> ExitCode:
    for code in (ExitCode.NO_PERMISSION, ExitCode.UNAVAILABLE, ExitCode.DATA):
        if code in codes:
            return code
    return ExitCode.OK
