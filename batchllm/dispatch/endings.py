"""How dispatch ends, in words for the person who started it. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from batchllm.dispatch.lane import Lane
from batchllm.errors import ExitCode
from batchllm.fallback import is_credentials


@dataclass(frozen=True, slots=True)
class Ending:
    """Why dispatch ended. `code` OK: everything fed to it has its outcome."""

    code: ExitCode
    reason: str = ""
    remedy: str = ""


def no_lane_left(lanes: Sequence[Lane]) -> Ending:
    reasons = "; ".join(f"{lane.info.name}: {lane.health.reason}" for lane in lanes)
    if _is_permission(lanes):
        return Ending(
            ExitCode.NO_PERMISSION,
            f"every lane rejected its key ({reasons})",
            "check the api_key of the lanes; finished rows are kept",
        )
    return Ending(
        ExitCode.UNAVAILABLE,
        f"no lane is left that could answer ({reasons})",
        "start again when a provider is back; finished rows are kept and not paid again",
    )


def all_dealt_with(lanes: Sequence[Lane], owed: Mapping[int, int]) -> Ending:
    """The feed is over and nothing waits. `owed`: lane → answers that it left open when it died."""
    if not owed:
        return Ending(ExitCode.OK)
    dead = [lane for lane in lanes if lane.index in owed]
    names = ", ".join(lane.info.name for lane in dead)
    missing = sum(owed.values())
    reasons = "; ".join(f"{lane.info.name} ({owed[lane.index]:,}): {lane.health.reason}" for lane in dead)
    reason = (
        f"{missing:,} {'answer is' if missing == 1 else 'answers are'} missing,"
        f" of lanes that were given up: {reasons}"
    )
    if _is_permission(dead):
        return Ending(
            ExitCode.NO_PERMISSION,
            reason,
            f"check the api_key of {names} and start again: only the missing answers are asked",
        )
    return Ending(
        ExitCode.UNAVAILABLE,
        reason,
        f"start again when {'it is' if len(dead) == 1 else 'they are'} back: only the missing answers are asked",
    )


def _is_permission(dead: Sequence[Lane]) -> bool:
    return all(is_credentials(lane.health.killer) for lane in dead)
