"""Replies and failures as lines of the record. Pure."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeAlias

from batchllm.dispatch.lane import Lane
from batchllm.pricing import cost_usd
from batchllm.records import (
    AttemptRecord,
    Billed,
    Failure,
    JournalRecord,
    Reading,
    Request,
    RowDone,
    RowFailed,
)
from batchllm.task.usage import UNKNOWN

_MESSAGE_CHARS = 1_000
#: Of an answer: billed, status, no class of failure.
_ANSWERED = ("yes", 200, None)


#: Tokens of the prompt, of the answer, and cost.
_Told: TypeAlias = tuple[int | None, int | None, float | None]


class CallFacts(NamedTuple):
    """What is known of a call beside its reply. `started_at` is wall time; `cost_usd` None: not known."""

    started_at: float
    latency_s: float
    cost_usd: float | None


def cost_of(lane: Lane, verdict: Reading | Failure, started_at: float) -> float | None:
    """What a call cost: 0 when it was surely not billed, None when nobody can tell."""
    if isinstance(verdict, Failure) and verdict.billed is Billed.NO:
        return 0.0
    return None if verdict.usage is None else cost_usd(lane.price, verdict.usage, wall_s=started_at)


def attempt_record(
    lane: Lane, request: Request, verdict: Reading | Failure, facts: CallFacts
) -> AttemptRecord:
    prompt_tokens, completion_tokens, cached_tokens, reasoning_tokens, _, _ = verdict.usage or UNKNOWN
    billed, status, code = (
        (verdict.billed, verdict.status, verdict.code) if isinstance(verdict, Failure) else _ANSWERED
    )
    ttft_s = verdict.ttft_s
    return AttemptRecord(
        request.rows[0].ordinal,
        len(request.rows),
        lane.index,
        verdict.model,
        prompt_tokens,
        completion_tokens,
        cached_tokens,
        reasoning_tokens,
        facts.cost_usd,
        billed,
        status,
        code,
        facts.latency_s * 1000.0,
        facts.started_at,
        verdict.request_id,
        None if ttft_s is None else ttft_s * 1000.0,
    )


def done_records(
    lane: Lane, request: Request, reading: Reading, facts: CallFacts, attempts: int, sample: int = 0
) -> list[JournalRecord]:
    """The attempt and one line for each row; tokens and cost of a packed request are shared out by size.

    Its body, where it is kept, goes to the first row: once for each row it would be squared in size.
    """
    usage, weights = reading.usage, request.tokens
    told: Iterable[_Told] = (
        [(usage.prompt_tokens, usage.completion_tokens, facts.cost_usd)]
        if len(weights) == 1
        else zip(
            shares(usage.prompt_tokens, weights),
            shares(usage.completion_tokens, weights),
            cost_shares(facts.cost_usd, weights),
            strict=True,
        )
    )
    latency_ms = facts.latency_s * 1000.0
    body = reading.body
    records: list[JournalRecord] = [attempt_record(lane, request, reading, facts)]
    for row, (value, finish_reason), digest, (prompt_tokens, completion_tokens, cost) in zip(
        request.rows, reading.answers, request.digests, told, strict=True
    ):
        records.append(
            RowDone(
                row,
                lane.index,
                value,
                finish_reason,
                reading.model,
                prompt_tokens,
                completion_tokens,
                cost,
                latency_ms,
                attempts,
                reading.request_id,
                digest,
                body,
                sample,
            )
        )
        body = None
    return records


def failed_records(
    request: Request,
    failure: Failure,
    *,
    lane: int | None,
    attempts: int,
    causes: Sequence[str] = (),
    sample: int = 0,
) -> list[JournalRecord]:
    """One line a row that is given up, with all the causes when several lanes were asked."""
    message = failure.message if len(causes) < 2 else "; ".join(causes)
    return [
        RowFailed(
            row,
            lane,
            failure.code,
            message[:_MESSAGE_CHARS],
            failure.status,
            attempts,
            digest,
            failure.content,
            failure.body if at == 0 else None,
            sample,
        )
        for at, (row, digest) in enumerate(zip(request.rows, request.digests, strict=True))
    ]


def shares(total: int | None, weights: Sequence[int]) -> Sequence[int | None]:
    """Split a whole number by weight so that the parts add up to it exactly; evenly when nothing has a weight."""
    if total is None or len(weights) == 1:
        return (total,) * len(weights)
    weights = weights if any(weights) else (1,) * len(weights)
    whole = sum(weights)
    parts: list[int] = []
    used = passed = 0
    for weight in weights:
        passed += weight
        parts.append(total * passed // whole - used)
        used += parts[-1]
    return parts


def cost_shares(cost: float | None, weights: Sequence[int]) -> Sequence[float | None]:
    """The same for money."""
    if cost is None or len(weights) == 1:
        return (cost,) * len(weights)
    weights = weights if any(weights) else (1,) * len(weights)
    whole = sum(weights)
    return [cost * weight / whole for weight in weights]
