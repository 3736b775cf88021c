"""Each lane of a job asked whether it would answer, before a run depends on it.

Keys and models are asked of the control plane, which costs nothing. The one call that does, and that is made only
when asked for, is the first row's own request: encoded, sent and judged by the very parts that would run the job,
with a short answer.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from batchllm.checkup.beside import Rehearsal
from batchllm.checkup.findings import Finding, LaneReport, State, Step
from batchllm.client.listing import (
    LISTED_OTHERWISE,
    is_listed,
    is_told,
    key_path,
    models_path,
    nearest_models,
    read_models,
)
from batchllm.client.retrying import with_retries
from batchllm.client.wire import Wire
from batchllm.clock import Clock
from batchllm.dispatch.lane import Lane
from batchllm.errors import ExitCode
from batchllm.limit.sharing import NoSharing
from batchllm.plan import Planner
from batchllm.pricing import cost_usd
from batchllm.provider.dialect import CAPS
from batchllm.provider.dialect_rules import CHAT, Rule
from batchllm.provider.failures import classify
from batchllm.provider.hints import limits
from batchllm.records import (
    Action,
    Failure,
    FailureCode,
    LimitHint,
    Reading,
    Request,
    Response,
    Row,
    RowFailed,
)
from batchllm.wiring.building import Frame, build_lanes
from batchllm.wiring.check import CheckedJob
from batchllm.wiring.lanes import LanePlan, mark_simulated

#: Enough for any model to say something; a reasoning model may spend it on thinking, which is an answer here, too.
SHORT_ANSWER_TOKENS = 16
_LOOK_S, _CALL_S = 20.0, 120.0
_RETRIES, _MAX_WAIT_S = 2, 5.0
#: What a simulator lists that answers whatever model is asked for.
_ANY_MODEL = "simulated"
#: Of a reply of status 200 that does not come from the API.
_NO_LIST = Failure(
    Action.ELSEWHERE,
    FailureCode.MALFORMED,
    "what answers is no list of models (is /v1 missing in base_url?)",
)
#: The model answered, only not as the job would keep it: with so short an answer that says nothing.
_ANSWERED = frozenset(
    {
        FailureCode.TRUNCATED,
        FailureCode.SCHEMA_MISMATCH,
        FailureCode.TOOL_CALL,
        FailureCode.REFUSAL,
        FailureCode.CONTENT_FILTER,
    }
)


@dataclass(frozen=True, slots=True)
class _Told:
    """What came of a call, with the limits that its headers spoke of."""

    outcome: Response | Failure
    hints: tuple[LimitHint, ...] = ()


async def check_lanes(
    rehearsal: Rehearsal,
    *,
    base_urls: Mapping[int, str],
    environ: Mapping[str, str],
    clock: Clock,
    spends: bool,
) -> tuple[LaneReport, ...]:
    """All lanes of one job at once. `base_urls` holds the addresses of simulated providers by lane."""
    checked = replace(rehearsal.checked, lanes=mark_simulated(rehearsal.checked.lanes))
    request = _first_request(checked, rehearsal.rows) if spends else None
    lanes = await _built(checked, base_urls, clock) if spends else [None] * len(checked.lanes)
    try:
        return tuple(
            await asyncio.gather(
                *(
                    _report(
                        replace(plan, base_url=base_urls.get(plan.index, plan.base_url)),
                        lane,
                        request,
                        environ,
                    )
                    for plan, lane in zip(checked.lanes, lanes, strict=True)
                )
            )
        )
    finally:
        for lane in lanes:
            if lane is not None:
                await lane.provider.close()


async def _report(
    plan: LanePlan, lane: Lane | None, request: Request | str | None, environ: Mapping[str, str]
) -> LaneReport:
    wire = Wire(
        plan.base_url,
        plan.headers,
        secrets=plan.secrets,
        connect_timeout_s=plan.spec.connect_timeout_s,
        environ=environ,
    )
    try:
        key, model, hints = await _looked_up(plan, wire)
    finally:
        await wire.close()
    findings = [key, model]
    if lane is not None and not key.exit_code:
        call, told = await _called(plan, lane, request)
        findings.append(call)
        hints = told or hints
    findings.append(_limits(hints))
    return LaneReport(plan.place, plan.info.name, plan.info.provider, plan.info.model, tuple(findings))


async def _looked_up(plan: LanePlan, wire: Wire) -> tuple[Finding, Finding, tuple[LimitHint, ...]]:
    asks_key, asks_models = key_path(plan.entry.name), models_path(plan.entry.name)
    told = None if asks_key is None else await _get(wire, plan, asks_key)
    key = _key_finding(plan, told)
    if key.exit_code:
        return key, Finding(Step.MODEL, State.UNKNOWN, "not asked"), ()
    if asks_models is not None and asks_models != asks_key:
        told = await _get(wire, plan, asks_models)
    return key, _model_finding(plan, told), () if told is None else told.hints


async def _get(wire: Wire, plan: LanePlan, path: str) -> _Told:
    hints: tuple[LimitHint, ...] = ()

    async def attempt() -> Response | Failure:
        nonlocal hints
        reply = await wire.get(path, min(plan.spec.timeout_s or _LOOK_S, _LOOK_S))
        if isinstance(reply, Failure):
            return reply
        hints = limits(reply.headers, dialect=plan.entry.dialect) or hints
        if 200 <= reply.status < 300:
            return reply
        return classify(
            reply.status, reply.headers, reply.body, dialect=plan.entry.dialect, secrets=plan.secrets
        )

    outcome = await with_retries(attempt, retries=_RETRIES, max_wait_s=_MAX_WAIT_S)
    return _Told(outcome, hints)


def _key_finding(plan: LanePlan, told: _Told | None) -> Finding:
    has_key = bool(plan.headers)
    found = "found" if has_key else "none is sent"
    if told is None:
        return Finding(Step.KEY, State.UNKNOWN, f"{found}; {plan.entry.title} has no free way to try it")
    failure = told.outcome
    if isinstance(failure, Response):
        if is_told(key_path(plan.entry.name) or "", failure.body):
            return Finding(Step.KEY, State.OK, "accepted" if has_key else "none needed")
        failure = _NO_LIST
    if failure.code is FailureCode.CREDENTIALS:
        return Finding(Step.KEY, State.FAILED, failure.message, _key_remedy(plan), ExitCode.NO_PERMISSION)
    if failure.status in (404, 405):
        return Finding(Step.KEY, State.UNKNOWN, f"{found}; the server lists no models, so it was not tried")
    if failure is _NO_LIST or failure.code is FailureCode.RATE_LIMIT:
        return Finding(Step.KEY, State.UNKNOWN, f"{found}; not tried: {failure.message}")
    return _unavailable(Step.KEY, failure)


def _key_remedy(plan: LanePlan) -> str:
    if plan.spec.api_key is not None:
        return f"{plan.place}.api_key: check that it holds a whole and valid key"
    names = " or ".join(plan.entry.env[:1]) or "api_key"
    return f"check {names}: a whole and valid key, with the right to list models"


def _model_finding(plan: LanePlan, told: _Told | None) -> Finding:
    listed = _listed(plan, told)
    if isinstance(listed, str):
        return Finding(Step.MODEL, State.UNKNOWN, f"not checked: {listed}")
    model = plan.info.model
    if plan.is_simulated and listed == [_ANY_MODEL]:
        return Finding(Step.MODEL, State.OK, "a simulator that answers any")
    if is_listed(model, listed):
        return Finding(Step.MODEL, State.OK, f"listed among {len(listed):,}")
    near = nearest_models(model, listed)
    meant = f"did you mean {' or '.join(near)}? " if near else ""
    some = ", ".join(listed[:5])
    return Finding(
        Step.MODEL,
        State.FAILED,
        f"{model} is not among the {len(listed):,} models that this key may use",
        f"{meant}listed are {some}{', ...' if len(listed) > 5 else ''}",
        ExitCode.UNAVAILABLE,
    )


def _listed(plan: LanePlan, told: _Told | None) -> list[str] | str:
    """The names of the models, or why there are none to look in."""
    if plan.entry.name in LISTED_OTHERWISE:
        return "what is listed are models, not deployments"
    if told is None:
        return f"{plan.entry.title} documents no list of models"
    if isinstance(told.outcome, Failure):
        return told.outcome.message
    listed = read_models(told.outcome.body)
    return "the server's list of models has no known shape" if listed is None else listed


async def _called(
    plan: LanePlan, lane: Lane, request: Request | str | None
) -> tuple[Finding, tuple[LimitHint, ...]]:
    if not isinstance(request, Request):
        state = State.UNKNOWN if request is None else State.FAILED
        code = ExitCode.OK if request is None else ExitCode.DATA
        return Finding(Step.CALL, state, request or "not made: the input has no rows", exit_code=code), ()
    reply = await lane.provider.send(lane.path, lane.encode(request), plan.spec.timeout_s or _CALL_S)
    if isinstance(reply, Failure):
        return _unavailable(Step.CALL, reply), ()
    return _call_finding(plan, lane.judge(reply, request), reply), tuple(lane.read_hints(reply.headers))


def _call_finding(plan: LanePlan, verdict: Reading | Failure, reply: Response) -> Finding:
    usage = verdict.usage
    cost = None if usage is None else cost_usd(plan.price, usage)
    spent = "cost unknown" if cost is None else f"${cost:.6f}"
    if isinstance(verdict, Reading):
        return Finding(Step.CALL, State.OK, f"answered in {reply.latency_s:.2f} s, {spent}")
    if verdict.code in _ANSWERED:
        return Finding(
            Step.CALL, State.OK, f"answered in {reply.latency_s:.2f} s, {spent} ({verdict.message})"
        )
    if verdict.code is FailureCode.RATE_LIMIT:
        return Finding(Step.CALL, State.UNKNOWN, verdict.message)
    if verdict.code is FailureCode.CREDENTIALS:
        return Finding(Step.CALL, State.FAILED, verdict.message, _key_remedy(plan), ExitCode.NO_PERMISSION)
    return _unavailable(Step.CALL, verdict)


def _unavailable(step: Step, failure: Failure) -> Finding:
    remedy = {
        FailureCode.QUOTA: "see the account's credit and spending limit",
        FailureCode.MODEL_MISSING: "name another model",
        FailureCode.CONNECTION: "check base_url and the network",
        FailureCode.TIMEOUT: "is the server up? try again later, or check base_url",
        FailureCode.CAPABILITY: "change the parameter that it names, or put it into the lane's omit",
    }.get(failure.code, "see what the message names, or try again later")
    return Finding(step, State.FAILED, failure.message, remedy, ExitCode.UNAVAILABLE)


def _limits(hints: Sequence[LimitHint]) -> Finding:
    said = [
        f"{hint.limit:,.0f} {hint.scope} {_window(hint.window_s)}" for hint in hints if hint.limit is not None
    ]
    if not said:
        return Finding(Step.LIMITS, State.UNKNOWN, "none stated")
    return Finding(Step.LIMITS, State.OK, ", ".join(said))


def _window(seconds: float) -> str:
    known = {1: "a second", 60: "a minute", 3600: "an hour", 86400: "a day"}
    return known.get(int(seconds), f"in {seconds:,.0f} s")


async def _built(checked: CheckedJob, base_urls: Mapping[int, str], clock: Clock) -> list[Lane | None]:
    plans = [with_short_answer(plan, checked.task.kind) for plan in checked.lanes]
    sharing = NoSharing()
    members = [await sharing.join(plan.pool) for plan in plans]
    frame = Frame(
        task=checked.task,
        retry=checked.job.retry,
        clock=clock,
        prompt_margin=checked.prompt_margin,
        say=lambda _: None,
    )
    return list(build_lanes(plans, frame, base_urls=base_urls, members=members))


def with_short_answer(plan: LanePlan, kind: str) -> LanePlan:
    """The same lane with a cap on its answers that costs next to nothing."""
    if kind not in ("chat", "completion"):
        return plan
    fields = dict(plan.translation.fields)
    told = [name for name in CAPS if name in fields]
    if not told and plan.api == "responses":
        told = [name for name in ("max_output_tokens",) if name not in plan.spec.omit]
    elif not told:
        rule = CHAT[plan.entry.dialect].get("max_tokens", Rule()) if kind == "chat" else Rule()
        told = [name for name in (rule.wire or "max_tokens",) if name not in plan.spec.omit]
    for name in told:
        cap = fields.get(name)
        fields[name] = min(cap, SHORT_ANSWER_TOKENS) if isinstance(cap, int) else SHORT_ANSWER_TOKENS
    return replace(plan, translation=replace(plan.translation, fields=fields))


def _first_request(checked: CheckedJob, rows: Sequence[Row]) -> Request | str | None:
    """Of the first row that can be asked; the reason where none of them can."""
    planner = Planner(
        checked.task,
        checked.counter,
        max_inputs=1,
        max_tokens=None,
        max_request_tokens=None,
        is_finished=lambda _: False,
        ruler=checked.ruler,
    )
    reason: str | None = None
    for row in rows:
        for planned in planner.requests([row]):
            if not isinstance(planned, RowFailed):
                return planned
            reason = reason or f"row {planned.row.ordinal} cannot be asked: {planned.message}"
    return reason
