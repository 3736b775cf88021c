"""The matrix of system calls: a short run that is broken at each of its write-class calls, taken up again, and checked.

The job has 30 rows, of which two cannot be sent, and 8 calls in flight. It is broken in three scenes: when it is new,
traced from its start; when 10 rows were done by a run before, traced from its first request, so that it commits,
drains, merges parts and completes; and when it is finished and has nothing to do. After the break the same command
runs to its end, and once more.
"""

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.durability import tracing
from benchmarks.durability.checker import Bill, Expected, Told, bill, expected_of, faults, read_held, told
from benchmarks.durability.rig import (
    FINISHED,
    INPUT_USD,
    OUTPUT_USD,
    Ended,
    Launch,
    Shape,
    Site,
    ended,
    expect_code,
    from_nothing,
    site,
)
from benchmarks.durability.tracing import WRITES, Call, Door, Fault
from benchmarks.harness import BenchmarkError

SHAPE = Shape(rows=30, in_flight=8)
_FIRST_ROWS = 10
#: Answers come one after the other, not all at once: many commits.
_MEDIAN_S, _P99_S = 0.03, 0.06
_STOPPED_CODE, _CANNOT_CREATE = 74, 73
_FIRST_REQUEST_S = 30.0
_STOPPED = re.compile(r"^State:\s+[Tt]", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Scene:
    """The state that a run begins from, and the door by which faults come in."""

    name: str
    state: str
    door: Door


SCENES = {
    scene.name: scene
    for scene in (
        Scene("new", "", "start"),
        Scene("resumed", "some", "first request"),
        Scene("finished", "all", "start"),
    )
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one break. `was_hit`: a call that has to do with the job met it; `code`: how that run ended.

    `is_hung`: it did not end by itself. Where the break met something else than a file, that is nobody's fault.
    """

    was_hit: bool
    code: int
    bill: Bill
    told: Told
    wrong: tuple[str, ...]
    is_hung: bool = False


def not_judged(code: int, *, is_hung: bool = False) -> Outcome:
    """Of a break that met nothing that it is about."""
    return Outcome(False, code, Bill(0, 0.0, 0), Told(), (), is_hung)


@dataclass(slots=True)
class Bench:
    """A site with an unbroken run's output, and the calls of such a run that can be met, for each scene."""

    site: Site
    expected: Expected
    _made: dict[str, list[Call]] = field(default_factory=dict)

    def broken(self, scene: Scene, fault: Fault) -> Outcome:
        """One point: break, resume, check, run again."""
        first = self._run(scene, fault)
        if fault.error is None:
            was_hit = first.code == -signal.SIGKILL and not first.is_hung
            return self.resumed(first, was_hit=was_hit, codes=(-signal.SIGKILL, *FINISHED))
        injected = [call for call in self._logged() if "(INJECTED)" in call.rest]
        hit = [call for call in injected if self._is_own(call)]
        # By its number it was this time a call on a socket, where no disk is full, or one that was to wake the loop up.
        if fault.name == "write" and len(hit) < len(injected):
            return not_judged(first.code, is_hung=first.is_hung)
        return self.resumed(first, was_hit=bool(hit), codes=(_STOPPED_CODE, *self._other_codes(scene, hit)))

    def _other_codes(self, scene: Scene, hit: Sequence[Call]) -> tuple[int, ...]:
        """How a run may end beside 74: going on where nothing is at risk, or refusing a folder that it cannot write.

        What SQLite cannot do when it is closed it leaves in the WAL, and the next start finds it there.
        """
        goes_on = scene.name == "finished" or all(self._is_passed_over(call) for call in hit)
        codes = FINISHED if goes_on else ()
        return codes if self.site.has_bought else (*codes, _CANNOT_CREATE)

    def calls(self, scene: Scene) -> list[Call]:
        """The calls that can be met, as an unbroken run makes them."""
        return tracing.points(self._all_calls(scene), scene.door)

    def _all_calls(self, scene: Scene) -> list[Call]:
        if scene.name not in self._made:
            expect_code(self._run(scene, None), FINISHED)
            self._made[scene.name] = self._logged()
        return self._made[scene.name]

    def own_calls(self, scene: Scene, names: Sequence[str]) -> list[Call]:
        """Those that are about files of the output."""
        return [call for call in self.calls(scene) if call.name in names and self._is_own(call)]

    def full_disk_calls(self, scene: Scene) -> list[Call]:
        """Writes to files of the output. `write` is for sockets, too, and for waking the loop up, without which a run
        waits for ever; and a fault meets number N of each thread, so that none of these may be such a call.
        """
        other = {
            call.nth for call in self._all_calls(scene) if call.name == "write" and not self._is_own(call)
        }
        return [
            call for call in self.own_calls(scene, WRITES) if call.name != "write" or call.nth not in other
        ]

    def _is_own(self, call: Call) -> bool:
        return call.path.startswith(str(self.site.out))

    def _is_passed_over(self, call: Call) -> bool:
        """SQLite takes no notice when the folder of its files cannot be fsynced."""
        return call.name == "fdatasync" and Path(call.path).is_dir()

    def _logged(self) -> list[Call]:
        return tracing.read_calls(self._log)

    @property
    def _log(self) -> Path:
        return self.site.folder / "strace.log"

    def resumed(self, first: Ended, *, was_hit: bool, codes: Sequence[int]) -> Outcome:
        """After a run that was broken or not: the same command to its end, the judgement, and the command again."""
        wrong = []
        if first.is_hung or first.code not in codes:
            wrong.append(f"the broken run {first.how}")
        second = self.site.run()
        is_hung = first.is_hung or second.is_hung
        if second.code not in FINISHED:
            wrong.append(f"the resumed run {second.how}")
            lost = Bill(0, 0.0, self.expected.rows)
            return Outcome(was_hit, first.code, lost, Told(), tuple(wrong), is_hung)
        wrong += faults(self.site.out, self.site.purchases, self.expected)
        cost = bill(self.site.purchases, read_held(self.site.out), self.expected, (INPUT_USD, OUTPUT_USD))
        # A run that came to its end has told of those before it, and the next one has nothing to tell any more.
        said = told(second.stderr) if told(second.stderr).calls else told(first.stderr)
        wrong += self._wrong_after(cost, said, second)
        return Outcome(was_hit, first.code, cost, said, tuple(wrong), is_hung)

    def _wrong_after(self, cost: Bill, said: Told, last: Ended) -> Iterator[str]:
        if cost.again > said.calls:
            yield f"{cost.again} calls were bought again, {said.calls} were told"
        if cost.again_usd > said.usd + 1e-9:
            yield f"{cost.again_usd} USD were paid twice, {said.usd} were told"
        before = self.site.ledger_bytes
        third = self.site.run()
        if third.code != last.code:
            yield f"the run after the last, which was to end with {last.code}, {third.how}"
        if self.site.ledger_bytes != before:
            yield "the run after the last has sent something"

    def _run(self, scene: Scene, fault: Fault | None) -> Ended:
        self.site.reset(scene.state)
        self._log.unlink(missing_ok=True)
        chosen = tracing.options(fault, self._log)
        return self.site.run(prefix=chosen) if scene.door == "start" else self._joined(chosen)

    def _joined(self, chosen: Sequence[str]) -> Ended:
        """The run is held at its first request until strace has joined: its first answers come after that."""
        with self.site.started() as process:
            self._wait_for_request(process)
            os.kill(process.pid, signal.SIGSTOP)
            _wait_stopped(process.pid)
            with tracing.joined(process.pid, chosen):
                os.kill(process.pid, signal.SIGCONT)
                return ended(process)

    def _wait_for_request(self, process: "subprocess.Popen[str]") -> None:
        before, until_s = self.site.ledger_bytes, time.monotonic() + _FIRST_REQUEST_S
        while self.site.ledger_bytes == before:
            if process.poll() is not None:
                raise BenchmarkError(f"a run has sent nothing and {ended(process).how}")
            if time.monotonic() > until_s:
                raise BenchmarkError(f"a run has sent nothing in {_FIRST_REQUEST_S:.0f} s")
            time.sleep(0.001)


def _wait_stopped(pid: int) -> None:
    status = Path(f"/proc/{pid}/status")
    while not _STOPPED.search(status.read_text("ascii", "replace")):
        time.sleep(0.0005)


@contextmanager
def bench(folder: Path, shape: Shape = SHAPE, *, launch: Launch = from_nothing) -> Iterator[Bench]:
    """A job that was carried out once without a break, and then prepared."""
    with site(folder, shape, median_s=_MEDIAN_S, p99_s=_P99_S, launch=launch) as place:
        expect_code(place.run(), FINISHED)
        made = Bench(place, expected_of(place.out, folder / "rows.jsonl"))
        place.keep("all")
        place.reset()
        expect_code(place.run(more=["--limit", str(_FIRST_ROWS)]), FINISHED)
        place.keep("some")
        yield made
