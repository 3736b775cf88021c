"""Replies and failures as lines of the record. Pure."""

from collections.abc import Sequence

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
    Usage,
)

_MESSAGE_CHARS = 1_000


def done_records(
    lane: Lane, request: Request, reading: Reading, *, started_at: float, latency_s: float, attempts: int
) -> list[JournalRecord]:
    """The attempt and one line for each row; tokens and cost of a packed request are shared out by size."""
    usage = reading.usage
    cost = cost_usd(lane.price, usage, wall_s=started_at)
    latency_ms = latency_s * 1000.0
    attempt = AttemptRecord(
        request.rows[0].ordinal,
        len(request.rows),
        lane.index,
        reading.model,
        usage.prompt_tokens,
        usage.completion_tokens,
        usage.cached_tokens,
        usage.reasoning_tokens,
        cost,
        Billed.YES,
        200,
        None,
        latency_ms,
        started_at,
        reading.request_id,
    )
    if len(request.rows) == 1:
        answer = reading.answers[0]
        row = RowDone(
            request.rows[0],
            lane.index,
            answer.value,
            answer.finish_reason,
            reading.model,
            usage.prompt_tokens,
            usage.completion_tokens,
            cost,
            latency_ms,
            attempts,
            reading.request_id,
            request.digests[0],
        )
        return [attempt, row]
    prompt = shares(usage.prompt_tokens, request.tokens)
    completion = shares(usage.completion_tokens, request.tokens)
    total = request.prompt_tokens or 1
    records: list[JournalRecord] = [attempt]
    for position, (row_ref, answer) in enumerate(zip(request.rows, reading.answers, strict=True)):
        part = request.tokens[position] / total
        records.append(
            RowDone(
                row_ref,
                lane.index,
                answer.value,
                answer.finish_reason,
                reading.model,
                prompt[position],
                completion[position],
                None if cost is None else cost * part,
                latency_ms,
                attempts,
                reading.request_id,
                request.digests[position],
            )
        )
    return records


def attempt_record(
    lane: Lane, request: Request, failure: Failure, *, started_at: float, latency_s: float
) -> AttemptRecord:
    usage = failure.usage or Usage()
    cost = cost_usd(lane.price, usage, wall_s=started_at) if failure.usage is not None else None
    return AttemptRecord(
        request.rows[0].ordinal,
        len(request.rows),
        lane.index,
        failure.model,
        usage.prompt_tokens,
        usage.completion_tokens,
        usage.cached_tokens,
        usage.reasoning_tokens,
        0.0 if failure.billed is Billed.NO else cost,
        failure.billed,
        failure.status,
        failure.code,
        latency_s * 1000.0,
        started_at,
        failure.request_id,
    )


def failed_records(
    request: Request, failure: Failure, *, lane: int | None, attempts: int, causes: Sequence[str] = ()
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
        )
        for row, digest in zip(request.rows, request.digests, strict=True)
    ]


def shares(total: int | None, weights: Sequence[int]) -> list[int | None]:
    """Split a whole number by weight so that the parts add up to it exactly."""
    if total is None:
        return [None] * len(weights)
    whole = sum(weights) or len(weights)
    parts: list[int | None] = []
    used = passed = 0
    for weight in weights:
        passed += weight if sum(weights) else 1
        part = total * passed // whole - used
        parts.append(part)
        used += part
    return parts
