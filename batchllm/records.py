"""The values that travel: row → request → response → reading or failure → what the journal keeps.

All are inert. Those that are made once a row are NamedTuples: immutable like frozen dataclasses, and about three
times cheaper to make, which shows at thousands of rows a second.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple, TypeAlias

Key: TypeAlias = str | int | None
#: An answer as kept: text (chat, completion), little-endian float32 bytes (embedding), JSON bytes (moderation, and
#: chat with more than a text to keep).
AnswerValue: TypeAlias = str | bytes


class Row(NamedTuple):
    """One line of the input. `carry` is the JSON array of the carried columns (see `batchllm.carry`)."""

    ordinal: int
    key: Key
    values: Mapping[str, object]
    carry: bytes


class RowRef(NamedTuple):
    """What is kept of a row once its request is made."""

    ordinal: int
    key: Key
    carry: bytes


class BadRow(NamedTuple):
    """A line that cannot be read; `place` names file, line and byte offset, `key` the row where that much is known."""

    ordinal: int
    place: str
    message: str
    key: Key = None


class Request(NamedTuple):
    """One unit of dispatch: one row, or several packed ones (embedding, moderation).

    `content` is lane-neutral: messages (chat), a string (completion), a list of strings, one a row (embedding,
    moderation). `tokens` holds the estimated prompt tokens of each row, `digests` what identifies its content
    (16 bytes): the same whichever lane it goes to and whatever it is packed with.

    `size` is what the content of a single row takes as JSON, in bytes (0: not known). Of a row that is asked again
    after an answer that was no use, `growth` says how many times the lane's output cap it may take, and `first` what
    was asked at first; its digest stays that of the first.
    """

    rows: tuple[RowRef, ...]
    content: object
    tokens: tuple[int, ...]
    digests: tuple[bytes, ...]
    size: int = 0
    growth: int = 1
    first: "Request | None" = None

    @property
    def prompt_tokens(self) -> int:
        return sum(self.tokens)


class Response(NamedTuple):
    """What came over the wire, whole. Header names are lower-case.

    Of a stream, `body` is the reply that its events add up to, and `ttft_s` how long the first piece of it took.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    latency_s: float
    ttft_s: float | None = None


class LimitScope(StrEnum):
    """What a provider's limit counts."""

    REQUESTS = "requests"
    TOKENS = "tokens"
    CONCURRENCY = "concurrency"


class LimitHint(NamedTuple):
    """One budget as the provider states it: `limit` in each `window_s`, of which `remaining` are left."""

    scope: LimitScope
    limit: float | None
    remaining: float | None
    reset_s: float | None
    window_s: float


class Usage(NamedTuple):
    """Tokens as the provider counted them; None where it did not say. `cost_usd` only when the provider states it.

    `cache_write_tokens`: of the prompt, those that were written to its cache, which may cost more. It is for the price
    of the call and not kept.
    """

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    cost_usd: float | None = None
    cache_write_tokens: int | None = None


class Answer(NamedTuple):
    value: AnswerValue
    finish_reason: str | None = None


class Reading(NamedTuple):
    """What an accepted reply holds: one answer for each row of the request, in the request's order."""

    answers: tuple[Answer, ...]
    usage: Usage
    model: str | None = None
    request_id: str | None = None
    body: str | None = None  # the whole reply, where the job keeps it
    ttft_s: float | None = None  # of a stream


class Action(StrEnum):
    """What a failed attempt asks of the caller."""

    AGAIN = "again"  # the same request may succeed later, on this lane
    ELSEWHERE = "elsewhere"  # not on this lane; another one may answer
    SPLIT = "split"  # too much in one request: halve it; a single row is given up
    GIVE_UP = "give_up"  # no lane will answer this row


class Billed(StrEnum):
    NO = "no"
    YES = "yes"
    UNKNOWN = "unknown"


class FailureCode(StrEnum):
    """The `class` column of failures/ and usage/."""

    RATE_LIMIT = "rate_limit"
    CONNECTION = "connection"
    TIMEOUT = "timeout"
    SERVER = "server_error"
    MALFORMED = "malformed_reply"
    CREDENTIALS = "credentials"
    QUOTA = "quota"
    MODEL_MISSING = "model_missing"
    CAPABILITY = "capability_missing"
    INVALID_REQUEST = "invalid_request"
    TOO_LARGE = "too_large"
    CONTEXT_LENGTH = "context_length"
    CONTENT_FILTER = "content_filter"
    REFUSAL = "refusal"
    TRUNCATED = "truncated"
    SCHEMA_MISMATCH = "schema_mismatch"
    TOOL_CALL = "malformed_tool_call"
    INPUT = "input"
    TEMPLATE = "template"
    LANE_DEAD = "lane_dead"
    INTERNAL = "internal"


#: Failures that speak of the lane and not of the row: several in a row and the lane rests.
LANE_TROUBLE = frozenset(
    {FailureCode.CONNECTION, FailureCode.TIMEOUT, FailureCode.SERVER, FailureCode.MALFORMED}
)


class Failure(NamedTuple):
    """One failed attempt, classified. `lane_is_dead`: no request will succeed on this lane in this run.

    `content` is the text that did arrive but was not accepted: it was paid for, so it is kept. `highest_cap`: what the
    provider takes at most for the length of an answer, where it refused a longer one.
    """

    action: Action
    code: FailureCode
    message: str
    status: int | None = None
    retry_after_s: float | None = None
    billed: Billed = Billed.NO
    lane_is_dead: bool = False
    content: str | None = None
    usage: Usage | None = None
    model: str | None = None
    request_id: str | None = None
    body: str | None = None
    ttft_s: float | None = None
    highest_cap: int | None = None


class AttemptRecord(NamedTuple):
    """A line of usage/: one HTTP call. `row` is the first row of the request, `rows` how many it held."""

    row: int
    rows: int
    lane: int
    model: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    cached_tokens: int | None
    reasoning_tokens: int | None
    cost_usd: float | None
    billed: str
    status: int | None
    failure: str | None
    latency_ms: float
    started_at: float
    request_id: str | None
    ttft_ms: float | None = None  # of a stream: until the first piece of an answer


class RowDone(NamedTuple):
    """A line of output/. `lane` is the lane's number in the journal; of a packed request the first row has the body.

    `sample`, from 0 on: which answer of several by the same lane.
    """

    row: RowRef
    lane: int
    answer: AnswerValue
    finish_reason: str | None
    model: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    cost_usd: float | None
    latency_ms: float
    attempts: int
    request_id: str | None
    digest: bytes
    body: str | None = None
    sample: int = 0


class RowFailed(NamedTuple):
    """A line of failures/. `lane` is None when no lane was asked, `sample` when the row failed before it was asked."""

    row: RowRef
    lane: int | None
    code: str
    message: str
    status: int | None
    attempts: int
    digest: bytes
    content: str | None = None
    body: str | None = None
    sample: int | None = None


class RowSkipped(NamedTuple):
    """Lines of skipped/: slots of a row that need not be asked, since the answers that it has settle its vote."""

    row: RowRef
    slots: tuple[int, ...]
    digest: bytes


JournalRecord: TypeAlias = AttemptRecord | RowDone | RowFailed | RowSkipped


class LaneInfo(NamedTuple):
    """What the record says of a lane."""

    name: str
    provider: str
    model: str
    is_simulated: bool
