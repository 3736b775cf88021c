"""One lane at run time: its parts, as handed in by the wiring, and its counters."""

from collections.abc import Callable
from dataclasses import dataclass

from batchllm.events import LaneStats
from batchllm.fallback import Health
from batchllm.limit.lane_limits import LaneLimits, Window
from batchllm.limit.output_size import OutputSize
from batchllm.ports import Provider
from batchllm.pricing import Price
from batchllm.records import Failure, LaneInfo, Reading, Request, Response


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

    @property
    def quiet_s(self) -> float:
        return self.limits.quiet_s
