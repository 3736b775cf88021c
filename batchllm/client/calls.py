"""One kind of call, planned: bytes out, the verdict on what comes back, attempts until there is an answer."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import orjson

from batchllm.client.reading import TextReader, parsed, text_answer
from batchllm.client.results import TextAnswer
from batchllm.client.retrying import with_retries
from batchllm.client.settings import Planned, Settings
from batchllm.client.wire import Events, StreamBrokenError, Wire
from batchllm.clock import Clock
from batchllm.errors import SettingsError
from batchllm.ports import Task
from batchllm.prompt import well_formed
from batchllm.provider.assembly import Assembly, ChatAssembly, error_of
from batchllm.provider.error_body import error_in
from batchllm.provider.failure_rules import Case
from batchllm.provider.failures import rule
from batchllm.provider.responses_assembly import ResponsesAssembly
from batchllm.provider.responses_reply import as_chat
from batchllm.provider.verdict import judge
from batchllm.records import Action, Billed, Failure, FailureCode, Reading, Request, Response
from batchllm.wiring.bodies import streamed
from batchllm.wiring.encoding import Encoder
from batchllm.wiring.lanes import LanePlan

CONTENT_FIELDS: Mapping[str, str] = {"chat": "messages", "completion": "prompt"}
#: A stream that is whole has so long to tell its usage and to end; servers may keep the connection open behind it.
_FAREWELL_S = 5.0
#: How it may end instead.
_FAREWELLS = (FailureCode.CONNECTION, FailureCode.TIMEOUT)


class Accepted(NamedTuple):
    """A reply that is an answer."""

    reading: Reading
    reply: dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Opened:
    events: Events
    first: object | None


@dataclass(frozen=True, slots=True)
class Call:
    """`kind` is a task's; `deadline_s` is of one attempt."""

    kind: str
    planned: Planned
    wire: Wire
    settings: Settings
    clock: Clock
    deadline_s: float
    reader: Any = field(default_factory=TextReader)  # anything with a task's `read`

    @property
    def plan(self) -> LanePlan:
        return self.planned.plan

    async def ask(self, request: Request) -> Accepted | Failure:
        """With retries; a failure is final."""
        body = self._body(self.plan, request)

        async def attempt() -> Accepted | Failure:
            reply = await self.wire.post(self.plan.path, body, self.deadline_s)
            return reply if isinstance(reply, Failure) else self._judged(reply, request)

        return await with_retries(attempt, retries=self.settings.retries, max_wait_s=self.settings.max_wait_s)

    async def pieces(self, request: Request) -> AsyncGenerator[str | TextAnswer | Failure, None]:
        """The text as it arrives, and last the whole answer, or why there is none."""
        body = self._body(streaming(self.plan), request)

        async def attempt() -> _Opened | Accepted | Failure:
            return await self._open(body, request)

        opened: _Opened | Accepted | Failure = await with_retries(
            attempt, retries=self.settings.retries, max_wait_s=self.settings.max_wait_s
        )
        if isinstance(opened, Failure):
            yield opened
            return
        if isinstance(opened, Accepted):
            answer = self.answer(opened)
            yield answer.content
            yield answer
            return
        arriving = _Arriving(ResponsesAssembly() if self._ends_itself else ChatAssembly())
        try:
            async with aclosing(self._rest(opened, arriving)) as rest:
                async for piece in rest:
                    yield piece
        finally:
            await opened.events.close()
        yield self._ended(arriving, opened.events, request)

    def answer(self, accepted: Accepted) -> TextAnswer:
        return text_answer(
            accepted.reply,
            accepted.reading,
            price=self.plan.price,
            wall_s=self.clock.wall_s(),
            notes=self.planned.notes,
        )

    def _body(self, plan: LanePlan, request: Request) -> bytes:
        try:
            return Encoder(plan, CONTENT_FIELDS.get(self.kind, "input"))(request)
        except TypeError as error:
            raise SettingsError(f"what is asked cannot be written as JSON: {error}") from None

    def _judged(self, response: Response, request: Request) -> Accepted | Failure:
        reader: Task = self.reader
        adapt = as_chat if self.plan.api == "responses" else None
        dialect, secrets = self.plan.entry.dialect, self.plan.secrets
        verdict = judge(response, request, reader, dialect=dialect, secrets=secrets, adapt=adapt)
        if isinstance(verdict, Failure):
            return verdict
        reply = parsed(response.body)
        chat = reply if adapt is None else adapt(reply)
        return Accepted(verdict, chat if isinstance(chat, dict) else reply)

    async def _open(self, body: bytes, request: Request) -> _Opened | Accepted | Failure:
        """Up to the first event: until then nothing has been shown, and an attempt may be repeated."""
        found = await self.wire.stream(self.plan.path, body, self.deadline_s)
        if isinstance(found, Failure):
            return found
        if isinstance(found, Response):
            return self._judged(found, request)
        try:
            first = await anext(found, None)
        except StreamBrokenError as error:
            await found.close()
            return self._broken(error.cause, found)
        except BaseException:
            await found.close()
            raise
        sent = error_of(first) if isinstance(first, dict) else None
        if sent is not None:
            await found.close()
            return self._broken(sent, found)
        return _Opened(found, first)

    @property
    def _ends_itself(self) -> bool:
        """Its last event says that it is the last; servers may keep the connection open behind it."""
        return self.plan.api == "responses"

    async def _rest(self, opened: _Opened, arriving: "_Arriving") -> AsyncGenerator[str | Failure, None]:
        event = opened.first
        while event is not None:
            sent = error_of(event) if isinstance(event, dict) else None
            if sent is not None:
                yield self._broken(sent, opened.events)._replace(content=arriving.text or None)
                return
            piece = arriving.take(event)
            if piece:
                yield piece
            if self._ends_itself and arriving.assembly.is_whole:
                return
            try:
                async with asyncio.timeout(_FAREWELL_S if arriving.assembly.is_whole else None):
                    event = await anext(opened.events, None)
            except TimeoutError:
                return
            except StreamBrokenError as error:
                failure = self._broken(error.cause, opened.events)
                if arriving.assembly.is_whole and failure.code in _FAREWELLS:
                    return  # the answer was there, only the farewell is missing
                yield failure._replace(content=arriving.text or None)
                return

    def _broken(self, cause: object, events: Events) -> Failure:
        if isinstance(cause, Failure):
            return cause._replace(billed=Billed.UNKNOWN)
        body = error_in({"error": cause})
        case = Case(body.status or 200, events.headers, body, self.plan.entry.dialect, None)
        return rule(case, self.plan.secrets, http_status=200)

    def _ended(self, arriving: "_Arriving", events: Events, request: Request) -> TextAnswer | Failure:
        if arriving.assembly.is_empty:
            return _nothing()
        if not arriving.assembly.is_whole:
            return Failure(
                Action.AGAIN,
                FailureCode.CONNECTION,
                f"the stream ended before the answer did, after {len(arriving.text):,} characters",
                billed=Billed.UNKNOWN,
                content=arriving.text or None,
            )
        whole = Response(200, events.headers, orjson.dumps(arriving.assembly.reply()), 0.0)
        accepted = self._judged(whole, request)
        return accepted if isinstance(accepted, Failure) else self.answer(accepted)


class _Arriving:
    """The events of one answer, added up, and the text of it so far."""

    def __init__(self, assembly: Assembly) -> None:
        self.assembly = assembly
        self._texts: list[str] = []

    @property
    def text(self) -> str:
        return "".join(self._texts)

    def take(self, event: object) -> str:
        """The piece of text that it adds; empty for most of what is no text."""
        piece = well_formed(self.assembly.take(event)) if isinstance(event, dict) else ""
        if piece:
            self._texts.append(piece)
        return piece


def streaming(plan: LanePlan) -> LanePlan:
    """The same call, its answer in events, with the usage in the last of them."""
    return replace(plan, translation=streamed(plan.translation, plan.spec, plan.entry, plan.api))


def _nothing() -> Failure:
    return Failure(
        Action.AGAIN, FailureCode.MALFORMED, "the stream had no answer in it", billed=Billed.UNKNOWN
    )
