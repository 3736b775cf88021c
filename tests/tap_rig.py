"""A tap on the wire: what a client really sends to a server and what it really gets, byte for byte."""

import selectors
import socket
import socketserver
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

import orjson
from httptools import HttpRequestParser, HttpResponseParser

_READ_BYTES = 64 * 1024


@dataclass
class Exchange:
    """One request and its reply. Header names are lower-case; what came twice is joined by a comma."""

    method: str = ""
    target: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    status: int = 0
    reply_headers: Mapping[str, str] = field(default_factory=dict)
    reply: bytes = b""

    @property
    def sent(self) -> Any:
        return orjson.loads(self.body)

    @property
    def got(self) -> Any:
        return orjson.loads(self.reply)


class _Message:
    """Callbacks of one side's parser."""

    def __init__(self, ended: Any) -> None:
        self.ended = ended
        self.on_message_begin()

    def on_message_begin(self) -> None:
        self.target = b""
        self.headers: dict[str, str] = {}
        self.body = b""

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        key, text = name.decode().lower(), value.decode("latin-1")
        self.headers[key] = f"{self.headers[key]}, {text}" if key in self.headers else text

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_message_complete(self) -> None:
        self.ended(self)


class _Call(socketserver.BaseRequestHandler):
    """One connection of a client, with its own to the server."""

    server: "_Server"

    def handle(self) -> None:
        self._waiting: deque[Exchange] = deque()
        requests = HttpRequestParser(_Message(self._asked))
        replies = HttpResponseParser(_Message(self._answered))
        self._requests, self._replies = requests, replies
        with (
            suppress(ConnectionError),
            socket.create_connection(self.server.upstream) as server,
            selectors.DefaultSelector() as ready,
        ):
            ready.register(self.request, selectors.EVENT_READ, (requests, server))
            ready.register(server, selectors.EVENT_READ, (replies, self.request))
            while True:
                for key, _ in ready.select():
                    data = key.fileobj.recv(_READ_BYTES)  # type: ignore[union-attr]
                    if not data:
                        return
                    parser, other = key.data
                    parser.feed_data(data)  # noted before it is passed on: who has a reply finds it here
                    other.sendall(data)

    def _asked(self, message: _Message) -> None:
        exchange = Exchange(
            self._requests.get_method().decode(), message.target.decode(), message.headers, message.body
        )
        self._waiting.append(exchange)
        self.server.exchanges.append(exchange)

    def _answered(self, message: _Message) -> None:
        exchange = self._waiting.popleft()
        exchange.status = self._replies.get_status_code()
        exchange.reply_headers, exchange.reply = message.headers, message.body


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, upstream: tuple[str, int]) -> None:
        super().__init__(("127.0.0.1", 0), _Call)
        self.upstream = upstream
        self.exchanges: list[Exchange] = []


class Tap:
    """`url` stands for the server's own address, without a path."""

    def __init__(self, server: _Server) -> None:
        self._server = server
        self.url = f"http://127.0.0.1:{server.server_address[1]}"

    def take(self) -> list[Exchange]:
        """The calls since the last time, in the order in which they came; looks at a server (GET) are left out."""
        taken, self._server.exchanges = self._server.exchanges, []
        return [exchange for exchange in taken if exchange.method == "POST"]


@contextmanager
def tapped(base_url: str) -> Iterator[Tap]:
    """A tap before the server of this address."""
    address = urlsplit(base_url)
    with _Server((address.hostname or "", address.port or 80)) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield Tap(server)
        finally:
            server.shutdown()
            thread.join()
