"""One reply after another, out of bytes that were cut anywhere: no socket, no loop, no clock.

The grammar is llhttp's (httptools), the parser of Node.js; what is added here is what a client must not leave to
its server: how much is held in memory, where a reply ends, and that nothing which comes with a reply or after it on an
idle connection is ever taken for the next one. Whether the connection may carry another call is part of the reply.
"""

from collections.abc import Callable
from typing import NamedTuple

from httptools import HttpParserCallbackError, HttpParserError, HttpParserUpgrade, HttpResponseParser

from batchllm.provider.unpacking import Unpacker, UnpackingError

#: A head, or whatever else is no body (interim replies, trailers, extensions of chunks). Providers send 1 to 3 KB;
#: curl allows 300 KB, nginx 32 KB as a proxy.
MAX_HEAD_BYTES = 64 * 1024
#: Providers send 10 to 40.
MAX_HEADERS = 256
#: Names come back in each reply, so that each spelling is decoded once. Bounded: a server may make them up.
_MAX_NAMES = 1_024
_MAX_NAME_BYTES = 64
_names: dict[bytes, str] = {}
#: A chunk may hold two bytes, and each piece takes fifty more: so many are put together.
_MOST_PIECES = 4_096


class ReplyError(Exception):
    """What arrived is no answer."""


class NoHttpError(ReplyError):
    """It breaks the grammar, or the bounds of a head."""


class BrokenReplyError(ReplyError):
    """It ended early, or its body is damaged."""


class NoReplyError(ReplyError):
    """The connection ended before a single byte."""


class ReplyTooLargeError(ReplyError):
    """More than may be held in memory."""


class Reply(NamedTuple):
    """Header names are lower-case; what came twice is joined by a comma. `is_last`: the connection is used up."""

    status: int
    headers: dict[str, str]
    body: bytes
    is_last: bool


class ReplyReader:
    """The replies of one connection, one at a time. After an error it is used up.

    The parser calls the methods `on_...`; what they raise comes out of `feed`. `status` is known once the head of
    the reply that is being read is whole, None before.
    """

    __slots__ = (
        "_fed_bytes",
        "_flows",
        "_has_body",
        "_headers",
        "_joined",
        "_joins",
        "_max_bytes",
        "_parser",
        "_pieces",
        "_reply",
        "_silent_bytes",
        "_sink",
        "_size",
        "_streams",
        "_unpacker",
        "status",
    )

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._joined: bytearray | None = None
        self._reply: Reply | None = None
        self._unpacker: Unpacker | None = None
        self.status: int | None = None
        self._fed_bytes = self._silent_bytes = 0
        self._has_body = False
        self._sink: Callable[[bytes], None] | None = None
        self._streams = ""
        self._begin()
        self._parser = HttpResponseParser(self)
        # What aiohttp lets pass from servers, for the same reason: they exist.
        self._parser.set_dangerous_leniencies(
            lenient_headers=True, lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True
        )

    @property
    def headers(self) -> dict[str, str]:
        """Of the reply that is being read."""
        return self._headers

    def listen(self, media_type: str, sink: Callable[[bytes], None] | None) -> None:
        """Bodies of this type and of status 2xx go to `sink` piece by piece; their replies then hold none."""
        self._streams, self._sink = media_type, sink

    def feed(self, data: bytes) -> Reply | None:
        """The reply when it is whole, None until then. Raises ReplyError.

        Bytes behind a whole reply do no harm to it, but it is the last one.
        """
        self._fed_bytes = len(data)
        fault: BaseException | None = None
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade:
            fault = NoHttpError("it wants to speak another protocol")
        except HttpParserError as error:
            fault = _cause(error)
        reply = self._reply
        if reply is None:
            if fault is not None:
                raise fault  # here, where it does not become its own context
            self._watch(len(data))
            return None
        self._reply = None
        self.status = None
        self._silent_bytes = 0
        return reply if fault is None else reply._replace(is_last=True)

    def end(self) -> Reply:
        """The reply that ends with its connection. Raises NoReplyError, BrokenReplyError."""
        if self.status is None:
            if self._silent_bytes == 0:
                raise NoReplyError("no byte arrived")
            raise BrokenReplyError("it ended within its head")
        if (
            "content-length" in self._headers
            or "chunked" in self._headers.get("transfer-encoding", "").lower()
        ):
            raise BrokenReplyError(f"it ended after {self._size:,} bytes, before its end")
        return self._whole(is_last=True)

    def on_message_begin(self) -> None:
        if self._reply is not None:
            raise NoHttpError("there is more behind it")
        self._begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.status is not None:
            return  # a trailer: nothing that an answer needs
        key = _names.get(name) or _known(name)
        text = value.decode("latin-1").rstrip(" \t")
        headers = self._headers
        if key in headers:
            self._joins += 1
            if self._joins > MAX_HEADERS:
                raise NoHttpError(f"it has more than {MAX_HEADERS} headers")
            text = f"{headers[key]}, {text}"
        headers[key] = text

    def on_headers_complete(self) -> None:
        headers = self._headers
        status = self._parser.get_status_code()
        if status < 200:
            if status < 100:
                raise NoHttpError(f"its status is {status}")
            return
        self.status = status
        if len(headers) > MAX_HEADERS:
            raise NoHttpError(f"it has more than {MAX_HEADERS} headers")
        if self._fed_bytes > MAX_HEAD_BYTES and sum(map(len, headers.values())) > MAX_HEAD_BYTES:
            raise NoHttpError(f"its head is larger than {MAX_HEAD_BYTES:,} bytes")
        coding = headers.get("content-encoding")
        if coding is not None:
            self._unpacker = _unpacker(coding)
        elif int(headers.get("content-length", 0)) > self._max_bytes:
            raise ReplyTooLargeError
        if self._sink is not None:
            self._flows = status < 300 and headers.get("content-type", "").lower().startswith(self._streams)

    def on_body(self, data: bytes) -> None:
        self._has_body = True
        if self._unpacker is not None:
            try:
                data = self._unpacker.feed(data, self._max_bytes - self._size + 1)
            except UnpackingError as error:
                raise BrokenReplyError(str(error)) from error
        self._size += len(data)
        if self._size > self._max_bytes:
            raise ReplyTooLargeError
        if self._flows and self._sink is not None:
            self._sink(data)
            return
        self._pieces.append(data)
        if len(self._pieces) >= _MOST_PIECES:
            self._joined = self._joined or bytearray()
            self._joined += b"".join(self._pieces)
            self._pieces.clear()

    def on_message_complete(self) -> None:
        if self.status is not None:
            self._reply = self._whole(is_last=not self._parser.should_keep_alive())

    def _begin(self) -> None:
        self._headers: dict[str, str] = {}
        self._pieces: list[bytes] = []
        self._joined = None
        self._size = 0
        self._joins = 0
        self._unpacker = None
        self._flows = False
        self.status = None

    def _whole(self, *, is_last: bool) -> Reply:
        if self._unpacker is not None and not self._unpacker.is_whole:
            raise BrokenReplyError("its compressed body ends early")
        pieces = self._pieces
        if self._joined is not None:
            body = b"".join((self._joined, *pieces))
        else:
            body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        return Reply(self.status or 0, self._headers, body, is_last)

    def _watch(self, size: int) -> None:
        """A head that never ends, interim replies without end, trailers: bounded by what arrives between bodies."""
        if self._has_body:
            self._has_body = False
            self._silent_bytes = 0
        else:
            self._silent_bytes += size
            if self._silent_bytes > MAX_HEAD_BYTES:
                raise NoHttpError(f"its head is larger than {MAX_HEAD_BYTES:,} bytes")


def _known(name: bytes) -> str:
    key = name.decode("latin-1").lower()
    if len(_names) < _MAX_NAMES and len(name) <= _MAX_NAME_BYTES:
        _names[name] = key
    return key


def _unpacker(coding: str) -> Unpacker | None:
    try:
        return Unpacker.of(coding)
    except UnpackingError as error:
        raise BrokenReplyError(str(error)) from error


def _cause(error: HttpParserError) -> BaseException:
    """What a callback raised, otherwise what the parser has to say."""
    if isinstance(error, HttpParserCallbackError) and error.__context__ is not None:
        return error.__context__
    return NoHttpError(str(error))
