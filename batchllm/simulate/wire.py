"""HTTP/1.1 as bytes in and bytes out: no socket, no loop, no clock.

Written out rather than taken from a web framework because the simulator shares a processor with the runner that it
measures: this costs about 10 µs a request, aiohttp's server 45 µs. It speaks the part of HTTP that API clients use
(one request after the other on a connection, lengths or chunks) and is strict about the rest: what is ambiguous is
refused, because a lenient server hides the faults of its clients.
"""

from collections.abc import Iterable, Mapping, Sequence
from email.utils import formatdate
from http import HTTPStatus
from typing import Final, NamedTuple

HEAD_CAP_BYTES: Final = 64 * 1024
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
LAST_CHUNK: Final = b"0\r\n\r\n"
_BLANK_LINE: Final = b"\r\n\r\n"
_CHUNK_LINE_CAP_BYTES: Final = 1024
_STATUS_LINES: Final = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus
}


class WireError(Exception):
    """The bytes are no request; the connection cannot be read any further."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        self.message = message
        super().__init__(message)


class HttpRequest(NamedTuple):
    """One whole request. `path` has no query; header names are lower-case; `keeps_alive` is the client's wish."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    keeps_alive: bool = True
    is_http10: bool = False


class _Head(NamedTuple):
    method: str
    path: str
    headers: Mapping[str, str]
    length: int | None  # None: chunked
    keeps_alive: bool
    is_http10: bool


class RequestReader:
    """Bytes in, requests out, however the bytes were cut into packets.

    `_need` is how many bytes must be there before it is worth looking again: without it a body of 60 MB would be
    joined anew for each packet of it.
    """

    def __init__(self, body_cap_bytes: int) -> None:
        self._body_cap_bytes = body_cap_bytes
        self._pieces: list[bytes] = []
        self._size = 0
        self._need = 1
        self._head: _Head | None = None
        self._chunks: list[bytes] = []
        self._chunks_size = 0
        self._owes_continue = False

    @property
    def buffered_bytes(self) -> int:
        return self._size

    def feed(self, data: bytes) -> None:
        self._pieces.append(data)
        self._size += len(data)

    def take_continue(self) -> bool:
        """Whether the client waits for leave to send its body; says so once."""
        owes, self._owes_continue = self._owes_continue, False
        return owes

    def next_request(self) -> HttpRequest | None:
        """The next whole request, or None until more bytes come. Raises WireError."""
        if self._size < self._need:
            return None
        buffer = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        start = 0
        if self._head is None:
            start = self._read_head(buffer)
        head = self._head
        if head is None:
            self._keep(buffer, 0)
            return None
        body, end = self._read_body(head, buffer, start)
        self._keep(buffer, end)
        if body is None:
            return None
        self._head = None
        self._need = 1
        self._owes_continue = False
        return HttpRequest(head.method, head.path, head.headers, body, head.keeps_alive, head.is_http10)

    def _keep(self, buffer: bytes, start: int) -> None:
        rest = buffer[start:]
        self._pieces = [rest] if rest else []
        self._size = len(rest)

    def _read_head(self, buffer: bytes) -> int:
        """Set `_head` when it is whole; return where the body starts."""
        start = 0
        while buffer.startswith(b"\r\n", start):
            start += 2  # some clients end a body with an extra line break
        end = buffer.find(_BLANK_LINE, start, start + HEAD_CAP_BYTES)
        if end < 0:
            if len(buffer) - start >= HEAD_CAP_BYTES:
                raise WireError(431, f"The request's headers are larger than {HEAD_CAP_BYTES} bytes.")
            self._need = len(buffer) + 1
            return 0
        head = parse_head(buffer[start:end])
        if head.length is not None and head.length > self._body_cap_bytes:
            raise WireError(413, f"The request's body is larger than {self._body_cap_bytes} bytes.")
        self._head = head
        self._owes_continue = head.headers.get("expect", "").lower() == "100-continue"
        return end + len(_BLANK_LINE)

    def _read_body(self, head: _Head, buffer: bytes, start: int) -> tuple[bytes | None, int]:
        """The body when it is whole, and up to where the buffer is used up."""
        if head.length is None:
            return self._read_chunks(buffer, start)
        end = start + head.length
        if len(buffer) < end:
            self._need = head.length
            return None, start
        return buffer[start:end], end

    def _read_chunks(self, buffer: bytes, start: int) -> tuple[bytes | None, int]:
        while True:
            line_end = buffer.find(b"\r\n", start)
            if line_end < 0:
                if len(buffer) - start > _CHUNK_LINE_CAP_BYTES:
                    raise WireError(400, "A chunk of the body has no readable length.")
                self._need = len(buffer) - start + 1
                return None, start
            size = parse_chunk_size(buffer[start:line_end])
            if size == 0:
                return self._read_trailers(buffer, start, line_end)
            data_end = line_end + 2 + size
            if self._chunks_size + size > self._body_cap_bytes:
                raise WireError(413, f"The request's body is larger than {self._body_cap_bytes} bytes.")
            if len(buffer) < data_end + 2:
                self._need = data_end + 2 - start
                return None, start
            if buffer[data_end : data_end + 2] != b"\r\n":
                raise WireError(400, "A chunk of the body is longer than its length says.")
            self._chunks.append(buffer[line_end + 2 : data_end])
            self._chunks_size += size
            start = data_end + 2

    def _read_trailers(self, buffer: bytes, start: int, line_end: int) -> tuple[bytes | None, int]:
        """Trailers are read over: no client of an LLM sends any that matter."""
        end = buffer.find(_BLANK_LINE, line_end, line_end + HEAD_CAP_BYTES)
        if end < 0:
            if len(buffer) - line_end >= HEAD_CAP_BYTES:
                raise WireError(431, f"The request's trailers are larger than {HEAD_CAP_BYTES} bytes.")
            self._need = len(buffer) - start + 1
            return None, start
        body = b"".join(self._chunks)
        self._chunks, self._chunks_size = [], 0
        return body, end + len(_BLANK_LINE)


def parse_chunk_size(line: bytes) -> int:
    digits = line.partition(b";")[0].strip(b" \t")
    if not digits or len(digits) > 16 or digits.strip(b"0123456789abcdefABCDEF"):
        raise WireError(400, "A chunk of the body has no readable length.")
    return int(digits, 16)


def parse_head(data: bytes) -> _Head:
    first, *lines = data.decode("latin-1").split("\r\n")
    words = first.split(" ")
    if len(words) != 3 or not all(words):
        raise WireError(400, "The first line of the request cannot be read.")
    method, target, version = words
    if version not in ("HTTP/1.1", "HTTP/1.0"):
        raise WireError(505, "Only HTTP/1.1 and HTTP/1.0 are spoken here.")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name or name.strip() != name:
            raise WireError(400, "A header line of the request cannot be read.")
        name, value = name.lower(), value.strip(" \t")
        if name in headers:
            if name in ("content-length", "transfer-encoding") and headers[name] != value:
                raise WireError(400, f"The request has two different {name} headers.")
            value = f"{headers[name]}, {value}" if headers[name] != value else value
        headers[name] = value
    is_http10 = version == "HTTP/1.0"
    wish = headers.get("connection", "").lower()
    keeps_alive = not is_http10 and "close" not in wish
    return _Head(method, _path(target), headers, _length(headers), keeps_alive, is_http10)


def _path(target: str) -> str:
    if target.startswith(("http://", "https://")):
        target = "/" + target.partition("://")[2].partition("/")[2]
    return target.partition("?")[0].partition("#")[0]


def _length(headers: Mapping[str, str]) -> int | None:
    encoding = headers.get("transfer-encoding")
    length = headers.get("content-length")
    if encoding is not None:
        if length is not None:
            raise WireError(400, "The request has both content-length and transfer-encoding.")
        if encoding.lower() != "chunked":
            raise WireError(501, "Of the transfer encodings only chunked is understood here.")
        return None
    if length is None:
        return 0
    if not (length.isascii() and length.isdigit()) or len(length) > 18:
        raise WireError(400, "The request's content-length is not a number.")
    return int(length)


def render_head(
    status: int, headers: Iterable[tuple[str, str]], *, length: int | None, keeps_alive: bool
) -> bytes:
    """The head of a reply; without a length the body follows in chunks (or until the connection ends)."""
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers])
    if length is not None:
        lines += f"content-length: {length}\r\n"
    if not keeps_alive:
        lines += "connection: close\r\n"
    first = _STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status  # 529 has no name
    return b"".join((first, lines.encode("latin-1", "replace"), b"\r\n"))


def render_chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def render_event(payload: bytes) -> bytes:
    """One server-sent event."""
    return b"data: " + payload + b"\n\n"


def http_date(wall_s: float) -> str:
    return formatdate(wall_s, usegmt=True)


def cut_short(pieces: Sequence[bytes]) -> tuple[bytes, ...]:
    """What still arrives when the line breaks half-way: half of the pieces, or half of the only one."""
    if len(pieces) == 1:
        return (pieces[0][: len(pieces[0]) // 2],)
    return tuple(pieces[: len(pieces) // 2])
