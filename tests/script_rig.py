"""A server whose chat replies a function decides, over a real socket."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = Mapping[str, Any]


class Script(ThreadingHTTPServer):
    """`bodies` are what was asked, in order; a reply is made from the body, and from how many came before it."""

    daemon_threads = True

    def __init__(self, script: Callable[[Reply, int], Reply]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.script = script
        self.bodies: list[Reply] = []
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Script

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with self.server.lock:
            number = len(self.server.bodies)
            self.server.bodies.append(body)
        data = json.dumps(self.server.script(body, number)).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self) -> None:
        self.send_error(404)

    def log_message(self, *_given: object) -> None:
        """Says nothing."""


def reply(*messages: Mapping[str, Any], finish: str = "stop", **more: Any) -> Reply:
    """A chat completion with a choice for each message; its tokens are 10 and 5 a choice."""
    choices = [
        {"index": at, "message": {"role": "assistant", **message}, "finish_reason": finish}
        for at, message in enumerate(messages)
    ]
    usage = {"prompt_tokens": 10, "completion_tokens": 5 * len(messages)}
    return {"id": "x", "model": "script-1", "choices": choices, "usage": usage, **more}


@contextmanager
def scripted(script: Callable[[Reply, int], Reply]) -> Iterator[Script]:
    server = Script(script)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
