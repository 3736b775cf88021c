"""Kills at moments that nobody chose: many in one job's life, and one in a thousand rows with slow answers.

Three of four moments are drawn by progress (so many requests after the start, then a few milliseconds), one by time
from the start, imports and completion included. They follow from a seed.
"""

import os
import random
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.durability.checker import Purchase, expected_of
from benchmarks.durability.matrix import Bench, Outcome
from benchmarks.durability.rig import (
    FINISHED,
    Ended,
    Launch,
    Shape,
    Site,
    ended,
    expect_code,
    from_nothing,
    site,
)

#: Many rows a second, so that a kill meets large commits.
BUSY = Shape(rows=3_000, in_flight=64)
_BUSY_S = (0.05, 0.15)
#: What other runners were measured with: 64 in flight, answers after 0.3 s, one kill in 1,000 rows.
FIELD = Shape(rows=1_000, in_flight=64, bad_every=10_000)
_FIELD_S = (0.3, 0.3)
_FEWEST, _MOST = 0.1, 0.9
_JITTER_S = 0.05


@dataclass(frozen=True, slots=True)
class Killed:
    """`run` may have ended by itself before."""

    at_s: float
    run: Ended

    @property
    def met(self) -> bool:
        return self.run.code == -signal.SIGKILL


@contextmanager
def busy(
    folder: Path, shape: Shape = BUSY, *, launch: Launch = from_nothing
) -> Iterator[tuple[Bench, float]]:
    """The job with an unbroken run's output, and how long that run took."""
    with site(folder, shape, median_s=_BUSY_S[0], p99_s=_BUSY_S[1], launch=launch) as place:
        start_s = time.monotonic()
        expect_code(place.run(), FINISHED)
        took_s = time.monotonic() - start_s
        yield Bench(place, expected_of(place.out, folder / "rows.jsonl")), took_s


def life(made: Bench, took_s: float, kills: int, dice: random.Random) -> tuple[Outcome, int]:
    """One job that is killed so often, or until it ends; then resumed and judged. Returns the kills that met it too."""
    made.site.reset()
    runs: list[Ended] = []
    while len(runs) < kills and all(run.code == -signal.SIGKILL for run in runs):
        moment = _by_time(took_s, dice) if len(runs) % 4 == 3 else _by_progress(made.site, dice)
        runs.append(killed(made.site, *moment).run)
    met = sum(run.code == -signal.SIGKILL for run in runs)
    # What a run has told may be all that is told: the kill that ended it may have come when its job was done.
    last = Ended(runs[-1].code, "\n".join(run.stderr for run in runs))
    return made.resumed(last, was_hit=met > 0, codes=(-signal.SIGKILL, *FINISHED)), met


def _by_progress(place: Site, dice: random.Random) -> tuple[int, float]:
    return dice.randrange(1, place.shape.rows // 6), dice.random() * _JITTER_S


def _by_time(took_s: float, dice: random.Random) -> tuple[int, float]:
    return 0, dice.random() * took_s


def killed(place: Site, requests: int, then_s: float) -> Killed:
    """Start a run, and kill it so long after it has sent so many requests."""
    before = len(place.purchases)
    with place.started() as process:
        while process.poll() is None and requests and len(place.purchases) < before + requests:
            time.sleep(0.005)
        time.sleep(then_s)
        at_s = time.monotonic()
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        return Killed(at_s, ended(process))


@dataclass(frozen=True, slots=True)
class Again:
    """Of one kill: calls that were bought again, and those of them whose answer had come before it."""

    bought: int
    answered: int
    in_flight: int
    outcome: Outcome


@contextmanager
def field(folder: Path) -> Iterator[Bench]:
    with site(folder, FIELD, median_s=_FIELD_S[0], p99_s=_FIELD_S[1]) as place:
        expect_code(place.run(), FINISHED)
        yield Bench(place, expected_of(place.out, folder / "rows.jsonl"))


def one_kill(made: Bench, dice: random.Random) -> Again:
    """A thousand rows with one kill somewhere between the first tenth and the last."""
    made.site.reset()
    rows = made.site.shape.rows
    kill = killed(made.site, int(rows * dice.uniform(_FEWEST, _MOST)), dice.random() * _FIELD_S[0])
    before = made.site.purchases
    outcome = made.resumed(kill.run, was_hit=kill.met, codes=(-signal.SIGKILL,))
    return again(before, made.site.purchases, kill.at_s, outcome)


def again(before: Sequence[Purchase], after: Sequence[Purchase], killed_s: float, outcome: Outcome) -> Again:
    """`before` was bought until the kill, `after` in all."""
    later = {one.text for one in after[len(before) :]}
    twice = [one for one in before if one.text in later]
    return Again(
        len(twice),
        sum(one.answered_s <= killed_s for one in twice),
        sum(one.answered_s > killed_s for one in before),
        outcome,
    )
