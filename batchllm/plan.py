"""Rows → requests: what is already finished is left out, what cannot be asked is said, the rest is counted and packed.

Everything that can be known about a row before money is spent is decided here: its text, its tokens, whether it
fits into any lane's budget. A row that fails here has cost nothing and has met no lane.
"""

from collections.abc import Callable, Sequence
from hashlib import blake2b
from itertools import islice
from typing import NamedTuple, Protocol

import orjson

from batchllm.errors import RowError
from batchllm.ports import Task
from batchllm.records import BadRow, FailureCode, Request, Row, RowFailed, RowRef
from batchllm.tokens import TOKENS_PER_MESSAGE, TOKENS_PER_REPLY, estimate

_MESSAGE_CHARS = 500
_DIGEST_BYTES = 16
#: A row that never became a request has no content to identify.
_NO_DIGEST = b""
_NO_CARRY = b"[]"


class Counter(Protocol):
    def count_many(self, texts: Sequence[str]) -> list[int]: ...


class _Asked(NamedTuple):
    """A row that can be asked."""

    row: RowRef
    content: object
    tokens: int
    digest: bytes


class Planner:
    """One planner sees all rows of a run, a batch at a time, in order.

    `counter`: None estimates by bytes. `max_inputs`, `max_tokens`: most rows and most tokens of one packed request;
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
    ) -> None:
        self._task = task
        self._counter = counter
        self._max_inputs = max_inputs
        caps = [cap for cap in (max_tokens, max_request_tokens) if cap is not None]
        self._max_tokens = min(caps, default=None)
        self._max_request_tokens = max_request_tokens
        self._is_finished = is_finished
        self._pack: list[_Asked] = []
        self._pack_tokens = 0

    def requests(self, batch: Sequence[Row | BadRow]) -> list[Request | RowFailed]:
        """What the batch's rows became; rows of an unfilled pack wait for the next batch, or for `flush`."""
        planned: list[Request | RowFailed] = []
        for item in self._counted(
            [self._rendered(row) for row in batch if not self._is_finished(row.ordinal)]
        ):
            if isinstance(item, RowFailed):
                planned.append(item)
            elif self._task.is_packed:
                planned.extend(self._packed(item))
            else:
                planned.append(Request((item.row,), item.content, (item.tokens,), (item.digest,)))
        return planned

    def _rendered(self, row: Row | BadRow) -> _Asked | RowFailed:
        if isinstance(row, BadRow):
            return _failed(
                RowRef(row.ordinal, row.key, _NO_CARRY), FailureCode.INPUT, f"{row.place}: {row.message}"
            )
        ref = RowRef(row.ordinal, row.key, row.carry)
        try:
            content = self._task.content(row)
            digest = digest_of(self._task.kind, content)
        except RowError as error:
            return _failed(ref, FailureCode.TEMPLATE, " ".join(filter(None, (error.message, error.remedy))))
        except TypeError as error:  # orjson's: a value of a messages column that JSON cannot hold
            return _failed(ref, FailureCode.TEMPLATE, f"what the row asks cannot be sent: {error}")
        return _Asked(ref, content, 0, digest)

    def _counted(self, rendered: list[_Asked | RowFailed]) -> list[_Asked | RowFailed]:
        """With the tokens of each row, all texts counted in one call; rows that fit nowhere turn into failures."""
        texts = [() if isinstance(item, RowFailed) else self._task.texts(item.content) for item in rendered]
        flat = [text for group in texts for text in group]
        counts = iter(self._count(flat))
        counted: list[_Asked | RowFailed] = []
        for item, group in zip(rendered, texts, strict=True):
            if isinstance(item, RowFailed):
                counted.append(item)
                continue
            tokens = sum(islice(counts, len(group))) + self._frame_tokens(item.content)
            counted.append(self._sized(item._replace(tokens=tokens)))
        return counted

    def _count(self, texts: list[str]) -> Sequence[int]:
        return (
            [estimate(text) for text in texts] if self._counter is None else self._counter.count_many(texts)
        )

    def _frame_tokens(self, content: object) -> int:
        if self._task.kind != "chat" or not isinstance(content, list):
            return 0
        return TOKENS_PER_MESSAGE * len(content) + TOKENS_PER_REPLY

    def _sized(self, asked: _Asked) -> _Asked | RowFailed:
        most = self._max_request_tokens
        if most is None or asked.tokens <= most:
            return asked
        message = f"the row has about {asked.tokens:,} prompt tokens; the most that one request may have is {most:,}"
        return _failed(asked.row, FailureCode.TOO_LARGE, message, asked.digest)

    def _packed(self, asked: _Asked) -> list[Request]:
        done: list[Request] = []
        is_over = self._max_tokens is not None and self._pack_tokens + asked.tokens > self._max_tokens
        if is_over:
            done += self.flush()
        self._pack.append(asked)
        self._pack_tokens += asked.tokens
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
                tuple(asked.row for asked in pack),
                [asked.content for asked in pack],
                tuple(asked.tokens for asked in pack),
                tuple(asked.digest for asked in pack),
            )
        ]


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
    return blake2b(orjson.dumps([kind, content]), digest_size=_DIGEST_BYTES).digest()


def _failed(row: RowRef, code: FailureCode, message: str, digest: bytes = _NO_DIGEST) -> RowFailed:
    shown = message if len(message) <= _MESSAGE_CHARS else message[: _MESSAGE_CHARS - 1] + "…"
    return RowFailed(row, None, code, shown, None, 0, digest)
