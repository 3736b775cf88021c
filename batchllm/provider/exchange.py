"""One connection, and the one call that it carries: bytes to the transport, bytes from it to the reader.

The caller owns the connection from the moment it gets it until it gives it back; what happens to the connection in
the meantime ends the call, what happens afterwards ends the connection. Nothing here waits by the clock.
"""

import asyncio
from collections.abc import Callable

from batchllm.provider.reply import Reply, ReplyError, ReplyReader

#: Larger bodies are handed over in pieces of this size, and other calls have their turn between them: 1,000 uploads
#: of 1 MB would hold the loop for a second, and TLS enciphers on the spot.
PIECE_BYTES = 256 * 1024


class HalfSentError(Exception):
    """The connection ended before the request was handed over: half a request is none."""


class LostError(Exception):
    """The connection ended under the call, by something else than the network."""


class StalledError(Exception):
    """A stream stands still."""


class Wire(asyncio.Protocol):
    """Takes over an open transport. `ended` hears once that the connection is gone.

    `idle_since_s` belongs to the pool.
    """

    __slots__ = (
        "_answer",
        "_ended",
        "_is_fit",
        "_is_paused",
        "_is_sent",
        "_loop",
        "_reader",
        "_room",
        "_transport",
        "idle_since_s",
    )

    def __init__(
        self,
        transport: asyncio.Transport,
        loop: asyncio.AbstractEventLoop,
        max_reply_bytes: int,
        ended: Callable[["Wire"], None],
    ) -> None:
        self._transport = transport
        self._loop = loop
        self._ended = ended
        self._reader = ReplyReader(max_reply_bytes)
        self._answer: asyncio.Future[Reply] | None = None
        self._room: asyncio.Future[None] | None = None
        self._is_sent = self._is_fit = True
        self._is_paused = False
        self.idle_since_s = 0.0
        transport.set_protocol(self)

    @property
    def is_fit(self) -> bool:
        """Whether a call may be made on it."""
        return self._is_fit and not self._transport.is_closing()

    @property
    def status(self) -> int | None:
        """Of the reply that broke off after its head."""
        return self._reader.status

    @property
    def headers(self) -> dict[str, str]:
        """Of the same reply."""
        return self._reader.headers

    def listen(self, media_type: str, sink: Callable[[bytes], None] | None) -> None:
        """The body of a success of this type goes to `sink` as it comes, and not into the reply."""
        self._reader.listen(media_type, sink)

    def ask(self, request: bytes) -> "asyncio.Future[Reply]":
        """Send a whole request. The answer is a Reply, or raises ReplyError, HalfSentError, LostError, OSError."""
        self._is_fit = False
        self._answer = answer = self._loop.create_future()
        self._transport.write(request)
        return answer

    async def upload(self, head: bytes, body: bytes) -> Reply:
        """As `ask`, for a body that is handed over in pieces, no faster than it is taken."""
        self._is_sent = False
        answer = self.ask(head)
        view = memoryview(body)
        for start in range(0, len(view), PIECE_BYTES):
            if self._is_paused:
                self._room = self._loop.create_future()
                await self._room
            else:
                await asyncio.sleep(0)
            if answer.done():  # refused before it was read to its end, or broken
                return await answer
            self._transport.write(view[start : start + PIECE_BYTES])
        self._is_sent = True
        return await answer

    def fail(self, error: Exception) -> None:
        """End the call with `error`, and the connection with it."""
        answer = self._answer
        if answer is not None and not answer.done():
            answer.set_exception(error)
            self._wake()
        self.abort()

    def release(self) -> bool:
        """The call is over, however it ended: whether the connection may carry another one."""
        answer, self._answer = self._answer, None
        if answer is not None:
            answer.cancel()  # nothing to one that is done, but an exception that nobody saw is not told either
        return self.is_fit

    def abort(self) -> None:
        self._is_fit = False
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        answer = self._answer
        if answer is None or answer.done():
            self.abort()  # nobody asked: it must not answer the next call
            return
        try:
            reply = self._reader.feed(data)
        except ReplyError as error:
            self.fail(error)
            return
        if reply is not None:
            self._settle(answer, reply)

    def eof_received(self) -> None:
        self._end(None)

    def connection_lost(self, error: Exception | None) -> None:
        self._end(error)
        self._ended(self)

    def pause_writing(self) -> None:
        self._is_paused = True

    def resume_writing(self) -> None:
        self._is_paused = False
        self._wake()

    def _settle(self, answer: "asyncio.Future[Reply]", reply: Reply) -> None:
        self._is_fit = not reply.is_last and self._is_sent and not self._transport.get_write_buffer_size()
        answer.set_result(reply)
        self._wake()

    def _end(self, error: Exception | None) -> None:
        """No more bytes will come."""
        self._is_fit = False
        answer = self._answer
        if answer is None or answer.done():
            return
        try:
            if error is not None:
                raise error if isinstance(error, OSError) else LostError(str(error)) from error
            self._settle(answer, self._reader.end())
        except (ReplyError, OSError, LostError) as fault:
            is_half = self._reader.status is None and not self._is_handed_over
            answer.set_exception(HalfSentError() if is_half else fault)
            self._wake()

    @property
    def _is_handed_over(self) -> bool:
        """Whether the other side may have the whole request."""
        return self._is_sent and not self._transport.get_write_buffer_size()

    def _wake(self) -> None:
        room, self._room = self._room, None
        if room is not None and not room.done():
            room.set_result(None)
