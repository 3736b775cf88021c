"""What a peer's script said and what the provider saw, as figures. Values in, values out."""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.harness import Ended, Usage, paired_ratio

#: Room for one line in a table.
_MAX_PROBLEM = 110
_PATH = re.compile(r"(?<![\w/:])/(?:[\w.@+-]+/)+([\w.@+-]+)")


class PeerError(Exception):
    """A peer could not be installed, failed, or did not end; the message is its last line."""


def answered(ended: Ended, timeout_s: float) -> int:
    """How many rows got an answer, from the last line of stdout that is such an object. Raises PeerError."""
    if ended.code is None:
        raise PeerError(f"did not end within {timeout_s:.0f} s")
    if ended.code != 0:
        raise PeerError(problem(f"ended with {ended.code}: {ended.last_line}"))
    for line in reversed(ended.stdout.splitlines()):
        try:
            said = json.loads(line)
        except ValueError:
            continue
        if isinstance(said, dict) and isinstance(said.get("answered"), int):
            return int(said["answered"])
    raise PeerError(problem(f"ended without saying how many rows it answered: {ended.last_line}"))


def problem(line: str) -> str:
    """On one line of a table; of paths only the last part is left, for they are this machine's."""
    short = _PATH.sub(r"\1", " ".join(line.split()))
    return short if len(short) <= _MAX_PROBLEM else short[: _MAX_PROBLEM - 1] + "…"


@dataclass(frozen=True, slots=True)
class Seen:
    """What the provider's ledger has: when it let requests in, and how many it refused or rejected."""

    accepted_at_s: tuple[float, ...]
    refused: int
    rejected: int


def seen(ledger: Iterable[str]) -> Seen:
    """From the lines of the simulator's ledger."""
    lines = [json.loads(line) for line in ledger]
    verdicts = [line["verdict"] for line in lines]
    accepted = sorted(float(line["at_s"]) for line in lines if line["verdict"] == "accepted")
    return Seen(tuple(accepted), verdicts.count("refused"), verdicts.count("rejected"))


def share_of_ideal(accepted_at_s: Sequence[float], rpm: float) -> float | None:
    """The rate from the first to the last accepted request, as a share of `rpm`; None with fewer than two.

    The provider lets in a second's worth at once at the start, so that a run of N seconds can reach (N + 1) / N.
    """
    if len(accepted_at_s) < 2 or accepted_at_s[-1] <= accepted_at_s[0]:
        return None
    return len(accepted_at_s) / (accepted_at_s[-1] - accepted_at_s[0]) / (rpm / 60)


def free_line(
    sizes: tuple[int, int, int],
    *,
    peer: list[Usage],
    start: list[Usage],
    bare: list[Usage],
    bare_start: list[Usage],
) -> dict[str, object]:
    """Without a limit: speed and CPU with starting up taken off, against the bare loop.

    `sizes`: rows of `peer`, calls of `bare`, and the few of both starts. Raises PeerError when a start took as long
    as a run: then there is nothing to tell.
    """
    rows, calls, few = sizes
    cpu_us = [(one - few_s) / (rows - few) * 1e6 for one, few_s in _pairs(peer, start)]
    bare_us = [(one - few_s) / (calls - few) * 1e6 for one, few_s in _pairs(bare, bare_start)]
    wall_s = median(one.wall_s for one in peer) - median(one.wall_s for one in start)
    if min(wall_s, *cpu_us, *bare_us) <= 0:
        raise PeerError("too short to be told from starting up: give more --rows")
    rows_s = (rows - few) / wall_s
    return {
        "ratio": paired_ratio(cpu_us, bare_us),
        "cpu_us": median(cpu_us),
        "bare_us": median(bare_us),
        "rows_s": rows_s,
        "core_share": rows_s * median(cpu_us) / 1e6,
        "start_s": median(one.cpu_s for one in start),
        "peak_mb": max(one.peak_mb for one in peer),
    }


def _pairs(whole: Sequence[Usage], start: Sequence[Usage]) -> list[tuple[float, float]]:
    """CPU of each run with that of the median start, which varies less than one start does."""
    constant = median(one.cpu_s for one in start)
    return [(one.cpu_s, constant) for one in whole]
