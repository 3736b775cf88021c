"""Lanes, planned → the parts that send."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from batchllm.clock import Clock
from batchllm.dispatch import Lane, asked_as_before
from batchllm.events import LaneStats
from batchllm.fallback import Health
from batchllm.limit.lane_limits import LaneLimits
from batchllm.limit.latency import Latency
from batchllm.limit.output_size import OutputSize
from batchllm.limit.sharing import Membership
from batchllm.limit.window import FIRST_CALLS, Window
from batchllm.ports import Task
from batchllm.provider.connection import HttpConnection, Streaming
from batchllm.provider.echo import Echo
from batchllm.provider.hints import limits, nonsense
from batchllm.provider.redact import one_line
from batchllm.provider.responses_reply import as_chat
from batchllm.provider.verdict import judge
from batchllm.records import Action, Failure, LimitHint, Reading, Request, Response
from batchllm.spec.models import Retry
from batchllm.task import EmbeddingTask
from batchllm.wiring.encoding import Encoder
from batchllm.wiring.lanes import LanePlan

#: Of a lane that does not say: 8 s of latency at 7,500 requests a minute. What really is in flight follows the rate.
MOST_IN_FLIGHT = 1_000


@dataclass(frozen=True, slots=True)
class Frame:
    """What all lanes of a run have in common. `most_open`: so many connections, of all of them together."""

    task: Task
    retry: Retry
    clock: Clock
    prompt_margin: float
    say: Callable[[str], None]
    most_open: int | None = None
    keeps_bodies: bool = False
    reask: Callable[[Request, Failure], Request] | None = None


def build_lanes(
    plans: Sequence[LanePlan],
    frame: Frame,
    *,
    base_urls: Mapping[int, str],
    members: Sequence[Membership],
) -> list[Lane]:
    """The running parts. `base_urls` holds the addresses of simulated providers by lane."""
    return [
        _build(plan, base_urls.get(plan.index, plan.base_url), frame, member, most)
        for plan, member, most in zip(plans, members, _windows(plans, frame), strict=True)
    ]


def _windows(plans: Sequence[LanePlan], frame: Frame) -> list[int]:
    """Most calls in flight of each lane: as the job says, or as usual, and no more than may be open in all."""
    is_packed = frame.task.kind == "embedding"
    wanted = [
        plan.spec.limits.concurrency or (plan.window if is_packed else MOST_IN_FLIGHT) for plan in plans
    ]
    if frame.most_open is None:
        return wanted
    given = shared_out(wanted, frame.most_open)
    short = [
        f"{plan.info.name} to {most} calls in flight"
        for plan, most in zip(plans, given, strict=True)
        if most < (plan.spec.limits.concurrency or 0)
    ]
    if short:
        frame.say(
            f"this process may have too few files and connections open (ulimit -n), which keeps {', '.join(short)}"
        )
    return given


def shared_out(wanted: Sequence[int], most: int) -> list[int]:
    """Of `most` in all to each what it wants, or as much as others that want more; at least one."""
    given, left = list(wanted), most
    for lanes_left, (want, at) in zip(
        range(len(wanted), 0, -1), sorted((want, at) for at, want in enumerate(wanted)), strict=True
    ):
        given[at] = max(1, min(want, left // lanes_left))
        left -= given[at]
    return given


def _build(plan: LanePlan, base_url: str, frame: Frame, member: Membership, most: int) -> Lane:
    task, spec = _reader(plan, frame.task), plan.spec
    writes = task.content_field != "input"  # embeddings and moderations have no tokens of answer
    choices, cap = plan.translation.choices, plan.translation.max_output_tokens
    most_tokens = None if cap is None else cap * choices
    window = Window(most, usual=plan.entry.concurrency, first=FIRST_CALLS)
    lane_limits = _limits(plan, window, frame, member)
    encode = Encoder(plan, task.content_field)
    return Lane(
        index=plan.index,
        info=plan.info,
        provider=_connection(plan, base_url, frame.clock),
        path=plan.path,
        encode=encode,
        judge=_Judge(plan, task, frame, encode, window),
        limits=lane_limits,
        window=window,
        health=Health(frame.retry.patience_s),
        output_size=OutputSize(most_tokens if writes else 0, choices),
        stats=LaneStats(*plan.info, rpm=spec.limits.rpm, tpm=spec.limits.tpm),
        latency=Latency(spec.timeout_s),
        read_hints=_HintReader(plan, lane_limits),
        price=plan.price,
        max_output_tokens=(most_tokens or 0) if writes else 0,
        prompt_margin=frame.prompt_margin,
        reask=frame.reask or asked_as_before,
        redact=lambda text: one_line(text, plan.secrets),
    )


def _limits(plan: LanePlan, window: Window, frame: Frame, member: Membership) -> LaneLimits:
    made = LaneLimits(
        clock=frame.clock,
        window=window,
        rpm=plan.spec.limits.rpm,
        tpm=plan.spec.limits.tpm,
        member=member,
        say=_saying(plan, frame),
    )
    made.recall(member.learned)
    return made


def _connection(plan: LanePlan, base_url: str, clock: Clock) -> HttpConnection:
    spec = plan.spec
    return HttpConnection(
        base_url=base_url,
        headers=plan.headers,
        connect_timeout_s=spec.connect_timeout_s,
        max_connections=0,
        secrets=plan.secrets,
        clock=clock,
        streaming=Streaming(plan.api, spec.stall_timeout_s) if plan.streams else None,
    )


class _HintReader:
    """Headers of a reply → the limits that they state."""

    def __init__(self, plan: LanePlan, lane_limits: LaneLimits) -> None:
        self._dialect = plan.entry.dialect
        self._limits = lane_limits

    def __call__(self, headers: Mapping[str, str]) -> Sequence[LimitHint]:
        for one in nonsense(headers):
            self._limits.note_nonsense(one.scope, one.header, is_believed=one.is_a_word)
        return limits(headers, dialect=self._dialect)


class _Judge:
    """A reply → the verdict on it. What a lane learns about its provider's answers is noted on the way."""

    def __init__(self, plan: LanePlan, task: Task, frame: Frame, encoder: Encoder, window: Window) -> None:
        self._plan = plan
        self._task = task
        self._keeps_body = frame.keeps_bodies
        self._adapt = as_chat if plan.api == "responses" else None
        self._echo = _echo(plan, task, frame)
        self._encoder = encoder
        self._window = window
        self._say = _saying(plan, frame)
        self._stragglers = 0

    def __call__(self, response: Response, request: Request) -> Reading | Failure:
        plan = self._plan
        verdict = judge(
            response,
            request,
            self._task,
            dialect=plan.entry.dialect,
            secrets=plan.secrets,
            keeps_body=self._keeps_body,
            adapt=self._adapt,
        )
        if verdict.model is not None and verdict.model not in self._echo.seen:
            self._echo.note(verdict.model)
        if isinstance(verdict, Failure) and verdict.highest_cap is not None:
            return self._capped(verdict, verdict.highest_cap, request)
        return verdict

    def _capped(self, failure: Failure, highest: int, request: Request) -> Failure:
        """Answers may not be as long here as the job wants: from now on they are asked for as long as they may be.

        Calls that were out then come back refused, too. Whoever goes on refusing what it named itself is not believed.
        """
        cap = self._encoder.cap(request)
        if cap is not None and highest < cap:
            self._encoder.lower_cap(highest)
            self._stragglers = self._window.in_flight
            self._say(
                f"answers have at most {highest:,} tokens here, not {cap:,}: that is asked for from now on"
            )
        elif self._stragglers > 0:
            self._stragglers -= 1
        else:
            return failure
        return failure._replace(action=Action.AGAIN, lane_is_dead=False)


def _saying(plan: LanePlan, frame: Frame) -> Callable[[str], None]:
    return lambda text: frame.say(f"{plan.info.name}: {text}")


def _reader(plan: LanePlan, task: Task) -> Task:
    """The task as this lane's replies are read."""
    if isinstance(task, EmbeddingTask) and plan.translation.fields.get("encoding_format") == "base64_int8":
        return task.of_signed_bytes()
    return task


def _echo(plan: LanePlan, task: Task, frame: Frame) -> Echo:
    say = _saying(plan, frame)
    return Echo(
        plan.info.model,
        is_free=plan.entry.base_url is None or not plan.entry.env or plan.model_field != "model",
        mixes_badly=task.kind == "embedding",
        say=lambda text: say(one_line(text, plan.secrets)),
    )
