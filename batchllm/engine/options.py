"""How a job is run, apart from what it says."""

import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

from batchllm.clock import Clock, SystemClock
from batchllm.engine.signals import RemoteStop
from batchllm.events import RunStats

Watch = Callable[[RunStats, str], AbstractContextManager[None]]


def _silence(text: str) -> None:
    """Says nothing."""


@dataclass(frozen=True, slots=True)
class Options:
    """`watch` shows the counters while the run goes; `say` gets single lines.

    `retries_failed`: only rows that failed, or with `asks_open` those without an outcome as well. `only_missing`: only
    rows without an outcome, not changed ones. On another job's record, `new_run` puts it aside and `keep_old` leaves
    its answers as they are. `spends_anew`: the budget is of this start alone.
    """

    limit: int | None = None
    retries_failed: bool = False
    asks_open: bool = False
    only_missing: bool = False
    new_run: bool = False
    keep_old: bool = False
    spends_anew: bool = False
    watch: Watch = lambda _stats, _title: nullcontext()
    say: Callable[[str], None] = _silence
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ), repr=False)
    clock: Clock = field(default_factory=SystemClock)
    remote: RemoteStop = field(default_factory=RemoteStop, repr=False)
