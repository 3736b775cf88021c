"""The SDK's transport with an end: a reply that never stops must not fill the memory."""

from collections.abc import AsyncIterator

import httpx2

#: A reply that is larger than this is no answer to one call.
MAX_REPLY_BYTES = 256 * 2**20


class TooLargeError(httpx2.ReadError):
    """A reply without end would fill the memory."""


class _BoundedStream(httpx2.AsyncByteStream):
    def __init__(self, stream: httpx2.AsyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for piece in self._stream:
            size += len(piece)
            if size > MAX_REPLY_BYTES:
                raise TooLargeError(f"the reply is larger than {MAX_REPLY_BYTES:,} bytes")
            yield piece

    async def aclose(self) -> None:
        await self._stream.aclose()


class BoundedTransport(httpx2.AsyncHTTPTransport):
    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        response = await super().handle_async_request(request)
        if isinstance(response.stream, httpx2.AsyncByteStream):
            response.stream = _BoundedStream(response.stream)
        return response
