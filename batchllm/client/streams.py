"""An answer as it arrives: pieces of text, and at its end the whole of it with usage and cost."""

from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, Self

from batchllm.client.reading import text_of
from batchllm.client.results import TextAnswer
from batchllm.errors import BatchllmError


class Assembly:
    """The pieces of a streamed reply, put together into the reply that would have come whole."""

    def __init__(self) -> None:
        self._top: dict[str, Any] = {}
        self._texts: list[str] = []
        self._reasoning: list[str] = []
        self._refusal: list[str] = []
        self._calls: dict[int, dict[str, Any]] = {}
        self._finish: str | None = None
        self.has_choice = False

    @property
    def content(self) -> str:
        return "".join(self._texts)

    @property
    def is_finished(self) -> bool:
        return self._finish is not None

    def take(self, event: Mapping[str, Any]) -> str:
        """The piece of text that an event adds; empty for the others."""
        self._take_top(event)
        choices = event.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        if not isinstance(choice, dict) or choice.get("index") not in (None, 0):
            return ""
        self.has_choice = True
        reason = choice.get("finish_reason")
        if isinstance(reason, str) and reason:
            self._finish = reason
        delta = choice.get("delta")
        if not isinstance(delta, dict):
            return self._add_text(text_of(choice.get("text")))
        self._reasoning.append(text_of(delta.get("reasoning_content") or delta.get("reasoning")))
        self._refusal.append(text_of(delta.get("refusal")))
        for call in delta.get("tool_calls") or ():
            self._take_call(call)
        return self._add_text(text_of(delta.get("content")))

    def reply(self) -> dict[str, Any]:
        message = {
            "role": "assistant",
            "content": self.content,
            "refusal": "".join(self._refusal) or None,
            "reasoning_content": "".join(self._reasoning) or None,
            "tool_calls": [self._calls[at] for at in sorted(self._calls)],
        }
        return {**self._top, "choices": [{"index": 0, "message": message, "finish_reason": self._finish}]}

    def _take_top(self, event: Mapping[str, Any]) -> None:
        told = {
            name: event[name] for name in ("id", "model", "created", "usage", "citations") if event.get(name)
        }
        extra = event.get("x_groq")
        if "usage" not in told and isinstance(extra, dict) and extra.get("usage"):
            told["usage"] = extra["usage"]
        self._top |= told

    def _add_text(self, piece: str) -> str:
        if piece:
            self._texts.append(piece)
        return piece

    def _take_call(self, call: object) -> None:
        """The id and name come once, the arguments in pieces; some servers leave the index out."""
        if not isinstance(call, dict):
            return
        index = call.get("index")
        at = index if isinstance(index, int) else len(self._calls) if call.get("id") else len(self._calls) - 1
        held = self._calls.setdefault(
            max(at, 0), {"id": "", "type": "function", "function": {"name": "", "arguments": ""}}
        )
        function = call.get("function")
        function = function if isinstance(function, dict) else {}
        held["id"] = held["id"] or call.get("id") or ""
        held["function"]["name"] = held["function"]["name"] or function.get("name") or ""
        held["function"]["arguments"] += function.get("arguments") or ""


class AsyncTextStream:
    """`async for piece in stream`: the text as it arrives; then `stream.answer`.

    Nothing is sent before the first piece is asked for. Leaving `async with` early closes the connection; what the
    model has written by then is billed.
    """

    def __init__(self, pieces: Callable[[Assembly], AsyncGenerator["str | TextAnswer", None]]) -> None:
        self._assembly = Assembly()
        self._pieces = pieces(self._assembly)
        self._answer: TextAnswer | None = None

    @property
    def content(self) -> str:
        """What has arrived so far."""
        return self._answer.content if self._answer is not None else self._assembly.content

    @property
    def answer(self) -> TextAnswer:
        """The whole answer, once the stream has ended."""
        if self._answer is None:
            raise BatchllmError("the answer is not complete yet", remedy="read the stream to its end first")
        return self._answer

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        piece = await anext(self._pieces)
        if isinstance(piece, TextAnswer):
            self._answer = piece
            await self.aclose()
            raise StopAsyncIteration
        return piece

    async def aclose(self) -> None:
        await self._pieces.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


class TextStream:
    """`for piece in stream`: the text as it arrives; then `stream.answer`. As AsyncTextStream, without await."""

    def __init__(self, stream: AsyncTextStream, wait: Callable[[Any], Any]) -> None:
        self._stream = stream
        self._wait = wait

    @property
    def content(self) -> str:
        return self._stream.content

    @property
    def answer(self) -> TextAnswer:
        return self._stream.answer

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        try:
            piece: str = self._wait(self._stream.__anext__())
        except StopAsyncIteration:
            raise StopIteration from None
        return piece

    def close(self) -> None:
        self._wait(self._stream.aclose())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
