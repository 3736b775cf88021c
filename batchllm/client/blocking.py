"""`connect`: the same calls without await, beside whatever loop the caller may have (notebooks have one).

A thread of its own runs the loop on which the calls are made; the caller waits for them, and Ctrl-C while it waits
ends the call.
"""

import asyncio
import threading
import weakref
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Generic, Literal, Self, TypeVar, overload

from batchllm.client.connection import AsyncClient, Prompt, connect_async
from batchllm.client.results import Embeddings, Moderations, TextAnswer
from batchllm.client.streams import TextStream
from batchllm.errors import BatchllmError
from batchllm.tokens import TokenCount

_T = TypeVar("_T")
#: A loop that was told to end and does not is left to the end of the process.
_FAREWELL_S = 5.0
#: A signal is heard no later than this.
_LOOK_S = 0.2


class _LoopThread:
    """A loop in a daemon thread, started with the first call."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._is_closed = False

    def wait(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        try:
            loop = self._started()
        except BatchllmError:
            coroutine.close()
            raise
        call = _Call(coroutine, loop)
        try:
            loop.call_soon_threadsafe(call.start)
            return call.result()
        except BaseException:  # Ctrl-C, wherever it came: what is closed next must not be in use any more
            call.abandon()
            raise

    def end(self, client: AsyncClient) -> None:
        """Close what is open and end the loop. The collector of garbage may call from any thread, the loop's too."""
        if self._thread is threading.current_thread():
            farewell = asyncio.ensure_future(client.aclose())
            farewell.add_done_callback(lambda _: asyncio.get_running_loop().stop())
            return
        try:
            if client.is_open:
                self.wait(client.aclose())
        finally:
            self._stop()

    def _stop(self) -> None:
        with self._lock:
            self._is_closed = True
            loop, thread, self._loop, self._thread = self._loop, self._thread, None, None
        if loop is not None and thread is not None:
            loop.call_soon_threadsafe(loop.stop)
            thread.join(_FAREWELL_S)

    def _started(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._is_closed:
                raise BatchllmError("this client is closed", remedy="connect again")
            if self._loop is None:
                self._loop = loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=_run, args=(loop,), name="batchllm-client", daemon=True
                )
                self._thread.start()
            return self._loop


class _Call(Generic[_T]):
    """A coroutine on the loop of another thread, which can be abandoned at any moment, also before it has begun."""

    def __init__(self, coroutine: Coroutine[Any, Any, _T], loop: asyncio.AbstractEventLoop) -> None:
        self._coroutine = coroutine
        self._loop = loop
        self._task: asyncio.Task[_T] | None = None
        self._is_abandoned = False
        self._over = threading.Event()

    def start(self) -> None:
        """On the loop."""
        if self._is_abandoned:
            self._coroutine.close()
            self._over.set()
            return
        self._task = self._loop.create_task(self._coroutine)
        self._task.add_done_callback(lambda _: self._over.set())

    def result(self) -> _T:
        while not self._over.wait(_LOOK_S):  # a signal that comes as the wait begins would not end it
            pass
        if self._task is None or self._task.cancelled():
            raise BatchllmError("the client was closed while a call was under way")
        return self._task.result()

    def abandon(self) -> None:
        self._is_abandoned = True
        if self._over.is_set():
            return
        with suppress(RuntimeError):  # the loop is closed, and all of its tasks are over
            self._loop.call_soon_threadsafe(self._cancel)
            self._over.wait(_FAREWELL_S)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()
        elif not self._over.is_set():  # it will not be started, or was never going to be
            self.start()


def _run(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()


def connect(provider: str | Mapping[str, object], **config: Any) -> "Client":
    """A client of one provider.

    `provider` is a name of `batchllm providers`, `custom` or `simulator`, or a mapping with `provider` in it, also in
    the form {"type": "openai_compatible", "config": {...}}. `config` takes what a lane of a job takes (api_key,
    base_url, headers, extra_body, omit, price, timeout_s, connect_timeout_s, simulate; ${NAME} is read from the
    environment in the first three), and `default_model` (a model, or fast, balanced, powerful), `retries` (4) and
    `max_wait_s` (60), the longest wait before one. Raises SettingsError, CredentialsError.
    """
    return Client(connect_async(provider, **config))


class Client:
    """One provider under one key. `close`, or `with`, ends its connections; so does the end of the process."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self._thread = _LoopThread()
        self._finalizer = weakref.finalize(self, self._thread.end, client)

    @property
    def provider(self) -> str:
        """The provider's name in the catalogue."""
        return self._client.provider

    @property
    def default_model(self) -> str | None:
        """What a chat asks when the call names no model."""
        return self._client.default_model

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.provider!r}, default_model={self.default_model!r})"

    @overload
    def chat(
        self, messages: Prompt, *, model: str | None = ..., stream: Literal[False] = ..., **params: Any
    ) -> TextAnswer: ...
    @overload
    def chat(
        self, messages: Prompt, *, model: str | None = ..., stream: Literal[True], **params: Any
    ) -> TextStream: ...
    def chat(
        self, messages: Prompt, *, model: str | None = None, stream: bool = False, **params: Any
    ) -> TextAnswer | TextStream:
        """A prompt, or messages as OpenAI has them, with `system` for a system message before a prompt.

        `params` are those of a job's chat task, translated for the provider; `tools`, `response_format` and the like
        go as they are, and whatever else the provider knows goes into `extra_body`. Raises SettingsError,
        CredentialsError, ModelMissingError, RateLimitedError, QuotaError, RequestRefusedError, NoProviderError.
        """
        if stream:
            return self.stream(messages, model=model, **params)
        answer: TextAnswer = self._thread.wait(self._client.chat(messages, model=model, **params))
        return answer

    def stream(self, messages: Prompt, *, model: str | None = None, **params: Any) -> TextStream:
        """The answer of a chat as it arrives."""
        return TextStream(self._client.stream(messages, model=model, **params), self._thread.wait)

    def complete(self, prompt: str, *, model: str | None = None, **params: Any) -> TextAnswer:
        """What a model writes after `prompt`, without a chat around it."""
        return self._thread.wait(self._client.complete(prompt, model=model, **params))

    def embed(
        self, texts: str | Sequence[str], *, model: str | None = None, dimensions: int | None = None
    ) -> Embeddings:
        """One vector for each text, in as many requests as the provider's documented sizes ask for."""
        return self._thread.wait(self._client.embed(texts, model=model, dimensions=dimensions))

    def moderate(self, texts: str | Sequence[str], *, model: str | None = None) -> Moderations:
        """A judgement on each text."""
        return self._thread.wait(self._client.moderate(texts, model=model))

    def models(self) -> list[str]:
        """The names of the models that this key may use, in the provider's order."""
        return self._thread.wait(self._client.models())

    def validate_credentials(self) -> bool | None:
        """Whether the provider accepts the key, asked without cost; None where it has no way to ask."""
        return self._thread.wait(self._client.validate_credentials())

    def count_tokens(
        self, text: Prompt, *, model: str | None = None, tools: Sequence[Mapping[str, Any]] = ()
    ) -> TokenCount:
        """Tokens of a text, or of messages with their frame; offline."""
        return self._client.count_tokens(text, model=model, tools=tools)

    def close(self) -> None:
        self._finalizer()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
