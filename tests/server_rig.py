"""A server in a thread that answers by a script, over real sockets; it notes what it was sent."""

import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import MappingProxyType
from typing import Any, NamedTuple, Self


class Seen(NamedTuple):
    """One request; header names are lower-case."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any


class Say(NamedTuple):
    """One reply. `events`: server-sent ones, in place of a body. `cut`: the connection ends in the middle."""

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = MappingProxyType({})
    events: Sequence[Any] | None = None
    cut: bool = False
    silent: bool = False


Script = Callable[[Seen, int], Say]


class _Quiet(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """A client that leaves is part of what is tested."""


class Server:
    """`base_url` ends in /v1; `seen` holds the requests in order."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.seen: list[Seen] = []
        self.released = threading.Event()
        self.gone = threading.Event()
        self._server = _Quiet(("127.0.0.1", 0), _Handler)
        self._server.owner = self
        self._server.daemon_threads = True
        self.base_url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.released.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def bodies(self) -> list[Any]:
        return [seen.body for seen in self.seen if seen.method == "POST"]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def owner(self) -> "Server":
        return self.server.owner

    def log_message(self, *_: object) -> None:
        """Silence."""

    def do_GET(self) -> None:
        self._answer(None)

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("content-length", 0)))
        self._answer(json.loads(raw))

    def _answer(self, body: Any) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        seen = Seen(self.command, self.path, headers, body)
        number = len(self.owner.seen)
        self.owner.seen.append(seen)
        say = self.owner.script(seen, number)
        if say.silent:
            self.owner.released.wait(20)
            self.close_connection = True
            return
        with suppress(OSError):
            self._write(say)

    def _write(self, say: Say) -> None:
        if say.events is not None:
            self._stream(say)
            return
        raw = say.body if isinstance(say.body, bytes) else json.dumps(say.body).encode()
        self.send_response(say.status)
        for name, value in {"content-type": "application/json", **say.headers}.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw[: len(raw) // 2] if say.cut else raw)
        if say.cut:
            self._hang_up()

    def _stream(self, say: Say) -> None:
        self.send_response(say.status)
        for name, value in {"content-type": "text/event-stream", **say.headers}.items():
            self.send_header(name, value)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for event in say.events or ():
            if event == "wait":
                self.wfile.flush()
                self._wait_for_farewell()
                continue
            text = event if isinstance(event, str) else json.dumps(event)
            data = f"data: {text}\n\n".encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
            self.wfile.flush()
        if say.cut:
            self._hang_up()
        else:
            self.wfile.write(b"0\r\n\r\n")

    def _wait_for_farewell(self) -> None:
        """Until the client closes the connection, or the test is over."""
        self.connection.settimeout(0.02)
        while not self.owner.released.is_set():
            try:
                if self.connection.recv(1) == b"":
                    break
            except TimeoutError:
                continue
            except OSError:
                break
        self.owner.gone.set()
        self.close_connection = True

    def _hang_up(self) -> None:
        self.wfile.flush()
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True


@contextmanager
def scripted(*says: Say, otherwise: Script | None = None) -> Iterator[Server]:
    """The replies one after the other; the last one again and again."""

    def script(seen: Seen, number: int) -> Say:
        return says[min(number, len(says) - 1)]

    with Server(otherwise or script) as server:
        yield server


def chat_reply(content: str | None = "fine", **message: Any) -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": "m-2026",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": content, **message},
                "finish_reason": "tool_calls" if message.get("tool_calls") else "stop",
            }
        ],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
    }


def chunk(content: str | None = None, finish: str | None = None, **delta: Any) -> dict[str, Any]:
    given = {**({} if content is None else {"content": content}), **delta}
    return {
        "id": "chatcmpl-1",
        "model": "m-2026",
        "choices": [{"index": 0, "delta": given, "finish_reason": finish}],
    }


def refusal(message: str, **fields: Any) -> dict[str, Any]:
    return {
        "error": {"message": message, "type": "invalid_request_error", "param": None, "code": None, **fields}
    }


USAGE = {
    "id": "chatcmpl-1",
    "choices": [],
    "usage": {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12},
}
