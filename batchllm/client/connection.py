"""`connect_async`: one provider's endpoints, as awaitable calls."""

import os
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias, overload

import pyarrow as pa

from batchllm.client.calls import Accepted, Call
from batchllm.client.failures import error_of
from batchllm.client.listing import is_told, key_path, models_path, nearest_models, read_models
from batchllm.client.packs import in_packs
from batchllm.client.reading import (
    TextReader,
    VectorReader,
    moderation_reader,
    moderations,
    request_of,
    summed,
)
from batchllm.client.results import Embeddings, Moderations, TextAnswer
from batchllm.client.retrying import with_retries
from batchllm.client.settings import Planned, Settings, chosen_model, plan_call, read_settings
from batchllm.client.streams import AsyncTextStream
from batchllm.client.wire import Wire
from batchllm.clock import Clock, SystemClock
from batchllm.errors import BatchllmError, NoProviderError, SettingsError
from batchllm.pricing import cost_usd
from batchllm.prompt import well_formed
from batchllm.provider.catalogue import TaskKind
from batchllm.provider.failures import classify
from batchllm.provider.overlay import open_catalogue
from batchllm.records import Action, Failure, FailureCode, Request, Response
from batchllm.spec.lanes import Simulation
from batchllm.tokens import TokenCount, count_tokens
from batchllm.wiring.entries import SIMULATOR
from batchllm.wiring.lanes import LanePlan

if TYPE_CHECKING:
    from batchllm.simulate import EmbeddedProviders

Message: TypeAlias = Mapping[str, Any]
Prompt: TypeAlias = str | Sequence[Message]
#: One attempt ends after this, unless `timeout_s` says otherwise.
DEADLINE_S = 600.0


def connect_async(provider: str | Mapping[str, object], **config: Any) -> "AsyncClient":
    """A client whose calls are awaited; see `batchllm.connect` for what it takes. Raises SettingsError, JobError."""
    environ = dict(os.environ)
    settings = read_settings(provider, config, catalogue=open_catalogue(environ), environ=environ)
    return AsyncClient(settings)


class AsyncClient:
    """One provider under one key. Connections are opened with the first call; `aclose`, or `async with`, ends them."""

    def __init__(self, settings: Settings, clock: Clock | None = None) -> None:
        self._settings = settings
        self._clock = clock or SystemClock()
        self._wires: dict[str, Wire] = {}
        self._simulator: EmbeddedProviders | None = None
        self._listed: list[str] | None = None
        self._is_closed = False
        self._check()

    @property
    def provider(self) -> str:
        """The provider's name in the catalogue."""
        return self._settings.entry.name

    @property
    def default_model(self) -> str | None:
        """What a chat asks when the call names no model; None where each call must name one."""
        try:
            wanted = chosen_model(self._settings, "chat", None)
        except SettingsError:
            return None
        return self._settings.entry.resolve_model(wanted, "chat")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.provider!r}, default_model={self.default_model!r})"

    @overload
    async def chat(
        self, messages: Prompt, *, model: str | None = ..., stream: Literal[False] = ..., **params: Any
    ) -> TextAnswer: ...
    @overload
    async def chat(
        self, messages: Prompt, *, model: str | None = ..., stream: Literal[True], **params: Any
    ) -> AsyncTextStream: ...
    async def chat(
        self, messages: Prompt, *, model: str | None = None, stream: bool = False, **params: Any
    ) -> TextAnswer | AsyncTextStream:
        """A prompt, or messages as OpenAI has them, with `system` for a system message before a prompt."""
        if stream:
            return self.stream(messages, model=model, **params)
        return await self._text("chat", model, *_messages(messages, params))

    def stream(self, messages: Prompt, *, model: str | None = None, **params: Any) -> AsyncTextStream:
        """The answer of a chat as it arrives."""
        content, params = _messages(messages, params)
        call = self._call("chat", self._plan("chat", model, params))

        async def pieces() -> AsyncGenerator[str | TextAnswer, None]:
            async with aclosing(call.pieces(request_of(content))) as arriving:
                async for piece in arriving:
                    if isinstance(piece, Failure):
                        raise await self._error(piece, call.plan)
                    yield piece

        return AsyncTextStream(pieces())

    async def complete(self, prompt: str, *, model: str | None = None, **params: Any) -> TextAnswer:
        """What a model writes after `prompt`, without a chat around it."""
        return await self._text("completion", model, well_formed(_spoken(prompt)), params)

    async def embed(
        self, texts: str | Sequence[str], *, model: str | None = None, dimensions: int | None = None
    ) -> Embeddings:
        """One vector for each text, in as many requests as the provider's documented sizes ask for."""
        planned = self._plan("embedding", model, {}, dimensions=dimensions)
        known = planned.plan.entry.embedding_model(planned.plan.info.model)
        width = dimensions or (known.dimensions if known else None)
        form = planned.plan.translation.fields.get("encoding_format")
        reader = VectorReader(width, of_signed_bytes=form == "base64_int8")
        accepted = await self._packed("embedding", planned, texts, reader)
        values = [answer.value for one in accepted for answer in one.reading.answers]
        data = pa.py_buffer(b"".join(value for value in values if isinstance(value, bytes)))
        numbers = pa.Array.from_buffers(pa.float32(), len(data) // 4, [None, data])
        vectors = pa.FixedSizeListArray.from_arrays(numbers, reader.dimensions or width or 1)
        return Embeddings(vectors, *self._told(accepted, planned))

    async def moderate(self, texts: str | Sequence[str], *, model: str | None = None) -> Moderations:
        """A judgement on each text."""
        planned = self._plan("moderation", model, {})
        accepted = await self._packed("moderation", planned, texts, moderation_reader())
        answers = [answer for one in accepted for answer in one.reading.answers]
        return Moderations(moderations(answers), *self._told(accepted, planned))

    async def models(self) -> list[str]:
        """The names of the models that this key may use, in the provider's order."""
        path = models_path(self.provider)
        if path is None:
            raise NoProviderError(
                f"{self._settings.entry.title} documents no list of models",
                remedy="see `batchllm providers` for those that are known",
            )
        reply = await self._get(path)
        if isinstance(reply, Failure):
            raise await self._error(reply, self._access().plan, searches=False)
        listed = read_models(reply.body)
        if listed is None:
            raise self._no_list()
        self._listed = listed
        return listed

    async def validate_credentials(self) -> bool | None:
        """Whether the provider accepts the key, asked without cost; None where it has no way to ask.

        Raises NoProviderError where it cannot be reached, or something else answers: that says nothing about the key.
        """
        path = key_path(self.provider)
        if path is None:
            return None
        reply = await self._get(path)
        if not isinstance(reply, Failure):
            if not is_told(path, reply.body):
                raise self._no_list()
            return True
        if reply.code is FailureCode.CREDENTIALS:
            return False
        raise await self._error(reply, self._access().plan, searches=False)

    def _no_list(self) -> NoProviderError:
        return NoProviderError(
            f"{self._settings.entry.title}: what came is no list of models",
            remedy="is /v1 missing in base_url?",
        )

    def count_tokens(
        self, text: Prompt, *, model: str | None = None, tools: Sequence[Mapping[str, Any]] = ()
    ) -> TokenCount:
        """Tokens of a text, or of messages with their frame; offline."""
        wanted = chosen_model(self._settings, "chat", model)
        return count_tokens(text, self._settings.entry.resolve_model(wanted, "chat"), tools=tools)

    @property
    def is_open(self) -> bool:
        """Whether there is anything to close."""
        return bool(self._wires) or self._simulator is not None

    async def aclose(self) -> None:
        self._is_closed = True
        wires, self._wires = self._wires, {}
        for wire in wires.values():
            await wire.close()
        simulator, self._simulator = self._simulator, None
        if simulator is not None:
            simulator.stop()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def _check(self) -> None:
        """What is wrong with the settings is said at once, not by the first call."""
        self._access()

    def _access(self) -> Planned:
        """Address and key, for calls that are about no model."""
        entry = self._settings.entry
        kinds = entry.kinds_of(self._settings.default_model or "") or entry.endpoints
        kind: TaskKind = next((kind for kind in kinds if entry.supports(kind)), "chat")
        model = self._settings.default_model if kind == "chat" else None
        return self._plan(kind, model or "-", {})

    def _plan(
        self, kind: TaskKind, model: str | None, params: Mapping[str, Any], dimensions: int | None = None
    ) -> Planned:
        return plan_call(
            self._settings,
            kind,
            wall_s=self._clock.wall_s(),
            model=model,
            params=params,
            dimensions=dimensions,
        )

    def _call(self, kind: str, planned: Planned, reader: object | None = None) -> Call:
        return Call(
            kind,
            planned,
            self._wire(planned.plan),
            self._settings,
            self._clock,
            planned.plan.spec.timeout_s or DEADLINE_S,
            TextReader() if reader is None else reader,
        )

    def _wire(self, plan: LanePlan) -> Wire:
        """One for each address; a provider may have several for its endpoints."""
        if self._is_closed:
            raise BatchllmError("this client is closed", remedy="connect again")
        base_url = self._address(plan)
        if base_url not in self._wires:
            self._wires[base_url] = Wire(
                base_url,
                plan.headers,
                secrets=plan.secrets,
                connect_timeout_s=plan.spec.connect_timeout_s,
                environ=self._settings.environ,
            )
        return self._wires[base_url]

    def _address(self, plan: LanePlan) -> str:
        if plan.entry.name != SIMULATOR:
            return plan.base_url
        if self._simulator is None:
            from batchllm.simulate import EmbeddedProviders

            self._simulator = EmbeddedProviders([plan.spec.simulate or Simulation()])
            self._simulator.start()
        return self._simulator.base_urls[0]

    async def _text(
        self, kind: TaskKind, model: str | None, content: object, params: Mapping[str, Any]
    ) -> TextAnswer:
        call = self._call(kind, self._plan(kind, model, params))
        return call.answer(await self._accepted(call, request_of(content)))

    async def _accepted(self, call: Call, request: Request) -> Accepted:
        outcome = await call.ask(request)
        if isinstance(outcome, Failure):
            raise await self._error(outcome, call.plan)
        return outcome

    async def _packed(
        self, kind: TaskKind, planned: Planned, texts: str | Sequence[str], reader: object
    ) -> list[Accepted]:
        listed = [texts] if isinstance(texts, str) else list(texts)
        if not listed or not all(isinstance(text, str) for text in listed):
            raise SettingsError(f"this {kind} needs a text, or a list of texts", remedy="give at least one")
        if not all(text.strip() for text in listed):
            raise SettingsError(
                f"a text of this {kind} is empty", remedy="leave it out: there is nothing to ask"
            )
        given = [well_formed(text) for text in listed]
        call = self._call(kind, planned, reader)
        found: list[Accepted] = []
        for pack in in_packs(given, planned.plan, kind):
            found += await self._halved(call, pack)
        return found

    async def _halved(self, call: Call, pack: list[str]) -> list[Accepted]:
        """What is too much for one request goes in two."""
        outcome = await call.ask(request_of(pack, len(pack)))
        if not isinstance(outcome, Failure):
            return [outcome]
        if outcome.action is not Action.SPLIT or len(pack) == 1:
            raise await self._error(outcome, call.plan)
        middle = len(pack) // 2
        return [*await self._halved(call, pack[:middle]), *await self._halved(call, pack[middle:])]

    def _told(self, accepted: Sequence[Accepted], planned: Planned) -> tuple[Any, ...]:
        """Usage, cost, model, notes and raw replies of several requests."""
        usage = summed([one.reading.usage for one in accepted])
        wall_s = self._clock.wall_s()
        costs = [cost_usd(planned.plan.price, one.reading.usage, wall_s=wall_s) for one in accepted]
        known = [cost for cost in costs if cost is not None]
        cost = sum(known) if len(known) == len(costs) else None
        raw = tuple(one.reply for one in accepted)
        return usage, cost, accepted[0].reading.model, planned.notes, raw

    async def _get(self, path: str) -> Response | Failure:
        plan = self._access().plan
        wire = self._wire(plan)

        async def attempt() -> Response | Failure:
            reply = await wire.get(path, plan.spec.timeout_s or DEADLINE_S)
            if isinstance(reply, Failure) or 200 <= reply.status < 300:
                return reply
            return classify(
                reply.status, reply.headers, reply.body, dialect=plan.entry.dialect, secrets=plan.secrets
            )

        return await with_retries(
            attempt, retries=self._settings.retries, max_wait_s=self._settings.max_wait_s
        )

    async def _error(self, failure: Failure, plan: LanePlan, *, searches: bool = True) -> BatchllmError:
        nearest: tuple[str, ...] = ()
        if searches and failure.code is FailureCode.MODEL_MISSING:
            known = [name for name in await self._known_models() if name != plan.info.model]
            nearest = nearest_models(plan.info.model, known)
        return error_of(
            failure,
            entry=plan.entry,
            model=plan.info.model,
            key_source=key_source(self._settings, plan),
            withheld=next((name for name in plan.entry.env if self._settings.environ.get(name)), ""),
            nearest=nearest,
        )

    async def _known_models(self) -> list[str]:
        """For a hint only: an error must not be hidden behind another one."""
        if self._listed is None:
            try:
                return await self.models()
            except BatchllmError:
                return []
        return self._listed


def key_source(settings: Settings, plan: LanePlan) -> str:
    """Where the key of a call came from, for the user's eyes; empty where none was sent."""
    if not any(name.lower() == "authorization" for name in plan.headers):
        return "headers" if plan.headers else ""
    given = settings.lane.get("api_key")
    if isinstance(given, str):
        return f"api_key ({given})" if given.startswith("${") and given.endswith("}") else "api_key"
    return next((name for name in settings.entry.env if settings.environ.get(name)), "the environment")


def _messages(given: Prompt, params: Mapping[str, Any]) -> tuple[list[object], dict[str, Any]]:
    """Messages as they are sent, and the parameters without what became one of them."""
    rest = dict(params)
    system = rest.pop("system", None)
    before: list[object] = [] if system is None else [{"role": "system", "content": well_formed(system)}]
    if isinstance(given, str):
        return [*before, {"role": "user", "content": well_formed(_spoken(given))}], rest
    listed: Sequence[object] = given if isinstance(given, list | tuple) else [given]
    messages = [dict(message) for message in listed if isinstance(message, Mapping)]
    if len(messages) < len(listed):
        raise SettingsError("a chat is a text, or a list of messages", remedy='{"role": ..., "content": ...}')
    if not messages:
        raise SettingsError("there is no message", remedy="give a prompt, or a list of messages")
    return [*before, *(_clean(message) for message in messages)], rest


def _spoken(prompt: str) -> str:
    if not prompt.strip():
        raise SettingsError("the prompt is empty", remedy="there is nothing to ask")
    return prompt


def _clean(message: dict[str, Any]) -> dict[str, Any]:
    content = message.get("content")
    return {**message, "content": well_formed(content)} if isinstance(content, str) else message
