"""One lane at run time: its parts, as handed in by the wiring, and its counters."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from batchllm.events import LaneStats
from batchllm.fallback import Health
from batchllm.limit.lane_limits import LaneLimits
from batchllm.limit.latency import Latency
from batchllm.limit.output_size import OutputSize, PromptSize
from batchllm.limit.window import Window
from batchllm.ports import Provider
from batchllm.pricing import Price
from batchllm.records import Failure, LaneInfo, LimitHint, Reading, Request, Response
from batchllm.retry import Tries


def _no_hints(_headers: Mapping[str, str]) -> Sequence[LimitHint]:
    """Nothing is read."""
    return ()


def asked_as_before(request: Request, _failure: Failure) -> Request:
    """A row is asked again as it was."""
    return request


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
    latency: Latency
    read_hints: Callable[[Mapping[str, str]], Sequence[LimitHint]] = _no_hints
    prompt_size: PromptSize = field(default_factory=PromptSize)
    price: Price | None = None
    max_output_tokens: int = 0  # the cap that the request carries, for all its choices; a budget needs one
    prompt_margin: float = 1.0  # what an estimate of prompt tokens is multiplied by to be an upper bound
    redact: Callable[[str], str] = str  # foreign text as one line without the lane's keys
    reask: Callable[[Request, Failure], Request] = asked_as_before  # what goes out after a failed attempt
    streak: list[Tries] = field(default_factory=list)  # of requests that failed on it since its last answer
    outage_s: float = float("-inf")  # when the rest began that several requests in a row led to
    newest: object | None = None  # the call that was sent last, while it is out
    newest_s: float = float("-inf")
    tokens_at_s: float = float("-inf")  # when the request that waited last for its tokens may go

    def tokens(self, request: Request) -> tuple[int, int]:
        """What a request will probably take, prompt and answer, and the most that its answer may bring it to.

        The second is what the provider may count until it is answered.
        """
        prompt, rows = self.prompt_size.correct(request.prompt_tokens), len(request.rows)
        likely = self.output_size.estimate()
        most = prompt + (self.max_output_tokens or likely) * request.growth * rows
        if request.growth > 1:  # it had more to say than the cap takes
            return most, most
        return prompt + likely * rows, most

    @property
    def has_room(self) -> bool:
        """A lane that is tried gets one call; calls that were out before the trial do not count as that one."""
        if not self.window.has_room:
            return False
        health = self.health
        is_tried = self.newest is not None and self.newest_s >= health.changed_s
        return not (is_tried and health.wants_one_at_a_time)

    @property
    def is_fit(self) -> bool:
        """May a request that was chosen be sent now?"""
        return self.health.is_up and not self.limits.quiet_s

    @property
    def quiet_s(self) -> float:
        return self.limits.quiet_s
