"""An answer as it arrives: pieces of text, and at its end the whole of it with usage and cost."""

from collections.abc import AsyncGenerator, Callable, Iterator
from types import TracebackType
from typing import Any, Self

from batchllm.client.results import TextAnswer
from batchllm.errors import BatchllmError


class AsyncTextStream:
    """`async for piece in stream`: the text as it arrives; then `stream.answer`.

    Nothing is sent before the first piece is asked for. Leaving `async with` early closes the connection; what the
    model has written by then is billed.
    """

    def __init__(self, pieces: AsyncGenerator["str | TextAnswer", None]) -> None:
        self._pieces = pieces
        self._texts: list[str] = []
        self._answer: TextAnswer | None = None

    @property
    def content(self) -> str:
        """What has arrived so far."""
        return self._answer.content if self._answer is not None else "".join(self._texts)

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
        self._texts.append(piece)
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
