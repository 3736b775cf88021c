"""Rows → requests: what is already finished is left out, what cannot be asked is said, the rest is counted and packed.

Everything that can be known about a row before money is spent is decided here: its text, its tokens, whether it
fits into any lane's budget. A row that fails here has cost nothing and has met no lane.
"""

from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from typing import NamedTuple, Protocol

import orjson

from batchllm.errors import RowError, RowInputError
from batchllm.ports import Ruler, Task
from batchllm.records import BadRow, FailureCode, Request, Row, RowFailed, RowRef
from batchllm.tokens import TOKENS_PER_MESSAGE, TOKENS_PER_REPLY, estimate
from batchllm.tokens import Ruler as PlainRuler

_MESSAGE_CHARS = 500
_DIGEST_BYTES = 16
#: A row that never became a request has no content to identify.
_NO_DIGEST = b""
_NO_CARRY = b"[]"


class Counter(Protocol):
    def count_many(self, texts: Sequence[str]) -> list[int]: ...


class _Asked(NamedTuple):
    """A row that can be asked; `texts` are what counts of its content."""

    row: RowRef
    content: object
    digest: bytes
    size: int
    texts: Sequence[str]


class _Packed(NamedTuple):
    """A row that waits for its pack to be full."""

    asked: _Asked
    tokens: int


class Planner:
    """One planner sees all rows of a run, a batch at a time, in order.

    `counter`: None estimates by bytes; `ruler` counts what is no text, and
    knows how much a lane reads of one row. `max_inputs`, `max_tokens`: most rows and most tokens of one packed request;
    a single row over `max_tokens` goes alone, since the count is an estimate. `max_request_tokens`: a row above it
    fits no lane's budget and is refused. `is_finished(ordinal)`: an earlier run has this row's answer.
    """

    def __init__(
        self,
        task: Task,
        counter: Counter | None,
        *,
        max_inputs: int,
        max_tokens: int | None,
        max_request_tokens: int | None,
        is_finished: Callable[[int], bool],
        ruler: Ruler | None = None,
    ) -> None:
        self._task = task
        self._ruler = ruler or PlainRuler()
        self._fixed_tokens = task.fixed_tokens(self._ruler)
        self._counter = counter
        self._max_inputs = max_inputs
        caps = [cap for cap in (max_tokens, max_request_tokens) if cap is not None]
        self._max_tokens = min(caps, default=None)
        self._max_request_tokens = max_request_tokens
        self._is_finished = is_finished
        self._pack: list[_Packed] = []
        self._pack_tokens = 0

    def requests(self, batch: Sequence[Row | BadRow]) -> list[Request | RowFailed]:
        """What the batch's rows became; rows of an unfilled pack wait for the next batch, or for `flush`."""
        rendered = [self._rendered(row) for row in batch if not self._is_finished(row.ordinal)]
        counts = self._counts([item for item in rendered if isinstance(item, _Asked)])
        planned: list[Request | RowFailed] = []
        for item in rendered:
            if isinstance(item, RowFailed):
                planned.append(item)
                continue
            tokens = sum([counts[text] for text in item.texts]) + self._frame_tokens(item.content)
            too_long = self._ruler.too_long(item.texts)
            if too_long is not None:
                planned.append(_failed(item.row, FailureCode.CONTEXT_LENGTH, too_long, item.digest))
            elif self._max_request_tokens is not None and tokens > self._max_request_tokens:
                planned.append(_too_large(item, tokens, self._max_request_tokens))
            elif self._task.is_packed:
                planned += self._packed(_Packed(item, tokens))
            else:
                planned.append(Request((item.row,), item.content, (tokens,), (item.digest,), item.size))
        return planned

    def _rendered(self, row: Row | BadRow) -> _Asked | RowFailed:
        if isinstance(row, BadRow):
            return _failed(
                RowRef(row.ordinal, row.key, _NO_CARRY), FailureCode.INPUT, f"{row.place}: {row.message}"
            )
        ref = RowRef(row.ordinal, row.key, row.carry)
        try:
            content = self._task.content(row)
            asked = _asked_bytes(self._task.kind, content)
        except RowInputError as error:
            return _failed(ref, FailureCode.INPUT, " ".join(filter(None, (error.message, error.remedy))))
        except RowError as error:
            return _failed(ref, FailureCode.TEMPLATE, " ".join(filter(None, (error.message, error.remedy))))
        except TypeError as error:  # orjson's: a value of a messages column that JSON cannot hold
            return _failed(ref, FailureCode.TEMPLATE, f"what the row asks cannot be sent: {error}")
        return _Asked(ref, content, _digest(asked), len(asked), self._task.texts(content))

    def _counts(self, asked: Sequence[_Asked]) -> Mapping[str, int]:
        """All texts of a batch in one call, each once: the same system message stands in every row of it."""
        texts = list({text: None for item in asked for text in item.texts})
        counts = (
            [estimate(text) for text in texts] if self._counter is None else self._counter.count_many(texts)
        )
        return dict(zip(texts, counts, strict=True))

    def _frame_tokens(self, content: object) -> int:
        other = self._fixed_tokens + self._task.other_tokens(content, self._ruler)
        if self._task.kind != "chat" or not isinstance(content, list):
            return other
        return TOKENS_PER_MESSAGE * len(content) + TOKENS_PER_REPLY + other

    def _packed(self, packed: _Packed) -> list[Request]:
        done: list[Request] = []
        if self._max_tokens is not None and self._pack_tokens + packed.tokens > self._max_tokens:
            done += self.flush()
        self._pack.append(packed)
        self._pack_tokens += packed.tokens
        if len(self._pack) >= self._max_inputs:
            done += self.flush()
        return done

    def flush(self) -> list[Request]:
        """The last pack, if rows wait in one."""
        pack, self._pack, self._pack_tokens = self._pack, [], 0
        if not pack:
            return []
        return [
            Request(
                tuple(one.asked.row for one in pack),
                [one.asked.content for one in pack],
                tuple(one.tokens for one in pack),
                tuple(one.asked.digest for one in pack),
            )
        ]


def asked_digest(task: Task, row: Row | BadRow) -> bytes:
    """What identifies the row's content; empty when it cannot be asked, which `Planner` then tells why."""
    if isinstance(row, BadRow):
        return _NO_DIGEST
    try:
        return digest_of(task.kind, task.content(row))
    except (RowError, TypeError):
        return _NO_DIGEST


def halves(request: Request) -> tuple[Request, Request]:
    """A packed request as two, in order. Raises ValueError for a single row."""
    rows = len(request.rows)
    if rows < 2:
        raise ValueError("only a request of several rows can be halved")
    middle = (rows + 1) // 2
    return narrow(request, range(middle)), narrow(request, range(middle, rows))


def narrow(request: Request, positions: Sequence[int]) -> Request:
    """The rows at these positions alone, such as those that a lane still has to answer; at least one."""
    if len(positions) == len(request.rows):
        return request
    if not positions or not isinstance(request.content, list):
        raise ValueError("a request is narrowed to some of its several rows")
    content = [request.content[at] for at in positions]
    return Request(
        tuple(request.rows[at] for at in positions),
        content,
        tuple(request.tokens[at] for at in positions),
        tuple(request.digests[at] for at in positions),
    )


def digest_of(kind: str, content: object) -> bytes:
    """Identifies what is asked, whichever lane it goes to. Raises TypeError for what JSON cannot hold."""
    return _digest(_asked_bytes(kind, content))


def _asked_bytes(kind: str, content: object) -> bytes:
    return orjson.dumps([kind, content])


def _digest(asked: bytes) -> bytes:
    return blake2b(asked, digest_size=_DIGEST_BYTES).digest()


def _too_large(asked: _Asked, tokens: int, most: int) -> RowFailed:
    message = f"the row has about {tokens:,} prompt tokens; the most that one request may have is {most:,}"
    return _failed(asked.row, FailureCode.TOO_LARGE, message, asked.digest)


def _failed(row: RowRef, code: FailureCode, message: str, digest: bytes = _NO_DIGEST) -> RowFailed:
    shown = message if len(message) <= _MESSAGE_CHARS else message[: _MESSAGE_CHARS - 1] + "…"
    return RowFailed(row, None, code, shown, None, 0, digest)
