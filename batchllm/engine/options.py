"""How a job is run, apart from what it says."""

import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace

from batchllm.clock import Clock, SystemClock
from batchllm.engine.signals import RemoteStop
from batchllm.events import RunStats

#: A tenth of what makes a run look hung.
BEAT_S = 5.0

Watch = Callable[[RunStats, str], AbstractContextManager[None]]


def _silence(text: str) -> None:
    """Says nothing."""


@dataclass(frozen=True, slots=True)
class Options:
    """`watch` shows the counters while the run goes; `say` gets single lines.

    `retries_failed`: only rows that failed; `retries_also`: these beside all others that are open. `only_missing`: only
    rows without an outcome, not changed ones. On another job's record, `new_run` puts it aside, `keep_old` leaves its
    answers as they are. `spends_anew`: the budget is of this start alone. `beat_s`: how often status.json is written.
    """

    limit: int | None = None
    retries_failed: bool = False
    retries_also: bool = False
    only_missing: bool = False
    new_run: bool = False
    keep_old: bool = False
    spends_anew: bool = False
    beat_s: float = BEAT_S
    watch: Watch = lambda _stats, _title: nullcontext()
    say: Callable[[str], None] = _silence
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ), repr=False)
    clock: Clock = field(default_factory=SystemClock)
    remote: RemoteStop = field(default_factory=RemoteStop, repr=False)

    @property
    def retries(self) -> bool:
        """Whether failures are to be asked again."""
        return self.retries_failed or self.retries_also

    def nested(self, *, is_changed: bool) -> "Options":
        """For a job of a lane that is asked beside the voters; `is_changed`: its record is another job's.

        With `retries_failed` the voters' new answers may have opened rows: these are asked beside those that failed.
        """
        return replace(
            self,
            limit=None,
            retries_failed=False,
            retries_also=self.retries_failed,
            only_missing=False,
            new_run=is_changed,
            keep_old=False,
            spends_anew=True,
        )
