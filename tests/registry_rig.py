"""Registries of several processes in one, on one folder, with a clock that the test moves."""

import math
import os
from collections.abc import Callable
from pathlib import Path

from batchllm.limit.member import Member
from batchllm.limit.pool import Pool
from batchllm.limit.processes import Process
from batchllm.limit.registry import Pace, Registry, Surroundings
from batchllm.limit.sharing import Report
from batchllm.testing import SteppedClock

POOL = Pool("https://api.example.com/v1", "m-1", "sk-canary-1234567890")
PACE = Pace()


def a_process(number: int) -> Process:
    """One that is there, whose number says nothing: only its lease tells of its end."""
    return Process("boot", f"container-{number}", os.getpid(), "")


class Peer:
    """One process: a registry and what it has said. Calls for the loop are made at once."""

    def __init__(
        self,
        folder: Path,
        clock: SteppedClock,
        number: int,
        *,
        process: Process | None = None,
        is_network: Callable[[Path], bool] = lambda path: False,
        pace: Pace = PACE,
    ) -> None:
        self.said: list[str] = []
        self.clock = clock
        self.is_asked = False
        self.registry = Registry(
            Surroundings(
                folder=lambda: folder,
                is_network=is_network,
                process=process or a_process(number),
                clock=clock,
                say=self.said.append,
                post=lambda call: call(),
            ),
            pace,
        )

    def join(self, demand: float = math.inf, pool: Pool = POOL) -> Member:
        member = Member(pool, Report(demand=demand), self._wake)
        self.registry.join(member)
        return member

    def _wake(self, member: Member, is_leaving: bool) -> None:
        self.is_asked = True
        if is_leaving:
            self.registry.leave(member)
        else:
            self.registry.beat()
