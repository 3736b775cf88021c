"""One kind of call, planned: bytes out, the verdict on what comes back, attempts until there is an answer."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import orjson

from batchllm.client.reading import TextReader, parsed, text_answer
from batchllm.client.results import TextAnswer
from batchllm.client.retrying import with_retries
from batchllm.client.settings import Planned, Settings
from batchllm.client.streams import Assembly
from batchllm.client.wire import Events, StreamBrokenError, Wire
from batchllm.clock import Clock
from batchllm.errors import SettingsError
from batchllm.ports import Task
from batchllm.provider.error_body import error_in
from batchllm.provider.failure_rules import Case
from batchllm.provider.failures import rule
from batchllm.provider.responses_reply import as_chat
from batchllm.provider.verdict import judge
from batchllm.records import Action, Billed, Failure, FailureCode, Reading, Request, Response
from batchllm.wiring.lanes import Encoder, LanePlan

CONTENT_FIELDS: Mapping[str, str] = {"chat": "messages", "completion": "prompt"}
#: Servers whose body is closed to the field; usage comes in the last event without it (docs 2026-08).
_NO_STREAM_OPTIONS = frozenset({"mistral"})


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

    async def pieces(
        self, request: Request, assembly: Assembly
    ) -> AsyncGenerator[str | TextAnswer | Failure, None]:
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
        try:
            async with aclosing(self._rest(opened, assembly)) as rest:
                async for piece in rest:
                    yield piece
        finally:
            await opened.events.close()
        yield self._ended(assembly, opened.events, request) if assembly.has_choice else _nothing()

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
        return _Opened(found, first)

    async def _rest(self, opened: _Opened, assembly: Assembly) -> AsyncGenerator[str | Failure, None]:
        event = opened.first
        while event is not None:
            piece = assembly.take(event) if isinstance(event, dict) else ""
            if piece:
                yield piece
            try:
                event = await anext(opened.events, None)
            except StreamBrokenError as error:
                failure = self._broken(error.cause, opened.events)
                if assembly.is_finished and failure.code is FailureCode.CONNECTION:
                    return  # the answer was there, only the farewell is missing
                yield failure._replace(content=assembly.content or None)
                return

    def _broken(self, cause: object, events: Events) -> Failure:
        if isinstance(cause, Failure):
            return cause._replace(billed=Billed.UNKNOWN)
        body = error_in({"error": cause})
        case = Case(body.status or 200, events.headers, body, self.plan.entry.dialect, None)
        return rule(case, self.plan.secrets, http_status=200)

    def _ended(self, assembly: Assembly, events: Events, request: Request) -> TextAnswer | Failure:
        if not assembly.is_finished:
            return Failure(
                Action.AGAIN,
                FailureCode.CONNECTION,
                f"the stream ended before the answer did, after {len(assembly.content):,} characters",
                billed=Billed.UNKNOWN,
                content=assembly.content or None,
            )
        whole = Response(200, events.headers, orjson.dumps(assembly.reply()), 0.0)
        accepted = self._judged(whole, request)
        return accepted if isinstance(accepted, Failure) else self.answer(accepted)


def streaming(plan: LanePlan) -> LanePlan:
    """The same call, its answer in events, with the usage in the last of them; by the Responses API it comes whole."""
    if plan.api == "responses":
        return plan
    more: dict[str, object] = {"stream": True}
    if plan.entry.dialect not in _NO_STREAM_OPTIONS and "stream_options" not in plan.spec.omit:
        more["stream_options"] = {"include_usage": True}
    translation = replace(plan.translation, fields={**more, **plan.translation.fields, "stream": True})
    return replace(plan, translation=translation)


def _nothing() -> Failure:
    return Failure(
        Action.AGAIN, FailureCode.MALFORMED, "the stream had no answer in it", billed=Billed.UNKNOWN
    )
