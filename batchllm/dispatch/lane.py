"""One lane at run time: its parts, as handed in by the wiring, and its counters."""

from collections.abc import Callable
from dataclasses import dataclass, field

from batchllm.events import LaneStats
from batchllm.fallback import Health, LaneState
from batchllm.limit.lane_limits import LaneLimits, Window
from batchllm.limit.output_size import OutputSize
from batchllm.ports import Provider
from batchllm.pricing import Price
from batchllm.records import Failure, LaneInfo, Reading, Request, Response
from batchllm.retry import Tries


@dataclass(slots=True)
class Lane:
    """`encode` makes the body, `judge` the verdict; both are bound to this lane's dialect and model."""

    index: int
    info: LaneInfo
    provider: Provider
    path: str
    encode: Callable[[Request], bytes]
    judge: Callable[[Response, Request], Reading | Failure]
    limits: LaneLimits
    window: Window
    health: Health
    output_size: OutputSize
    stats: LaneStats
    deadline_s: float
    price: Price | None = None
    max_output_tokens: int = 0  # the cap that the request carries; a budget needs one
    prompt_margin: float = 1.0  # what an estimate of prompt tokens is multiplied by to be an upper bound
    redact: Callable[[str], str] = str  # foreign text as one line without the lane's keys
    streak: list[Tries] = field(default_factory=list)  # of requests that failed on it since its last answer
    newest: object | None = None  # the call that was sent last, while it is out
    newest_s: float = float("-inf")

    @property
    def has_room(self) -> bool:
        """A lane that is tried gets one call; calls that were out before the trial do not count as that one."""
        is_tried = self.newest is not None and self.newest_s >= self.health.changed_s
        return self.window.has_room and not (self.health.wants_one_at_a_time and is_tried)

    @property
    def is_fit(self) -> bool:
        """May a request that was chosen be sent now?"""
        return self.health.state in (LaneState.RUNNING, LaneState.PROBING) and self.quiet_s <= 0

    @property
    def quiet_s(self) -> float:
        return self.limits.quiet_s
