"""Sockets: what the responder has decided is sent at its time, or cut, or never sent.

A connection is a protocol with one timer, not a task: ten thousand waiting requests cost ten thousand timers.
"""

import asyncio
import errno
from collections.abc import Sequence
from pathlib import Path
from secrets import token_hex
from typing import Final, cast

from batchllm.clock import Clock, SystemClock
from batchllm.errors import InvariantError, JobError, NoProviderError, StorageError
from batchllm.simulate.answers import rule_faults
from batchllm.simulate.delivery import Delivery, Reply
from batchllm.simulate.faults import latency_faults
from batchllm.simulate.ledger import Ledger
from batchllm.simulate.responder import Responder
from batchllm.simulate.schedule import schedule_faults
from batchllm.simulate.wire import (
    CONTINUE,
    LAST_CHUNK,
    HttpRequest,
    RequestReader,
    WireError,
    cut_short,
    render_chunk,
    render_head,
)
from batchllm.spec.lanes import Simulation

#: 2,048 texts of 8,192 tokens, the largest request that OpenAI takes, are about this much.
BODY_CAP_BYTES: Final = 64 * 1024 * 1024
#: Beyond this a client that sends more while it waits for an answer is not read from.
_READ_AHEAD_BYTES: Final = 256 * 1024
#: Runners open hundreds of connections in one go.
_BACKLOG: Final = 4096
#: Of a stream's latency, the share until its first event.
_FIRST_EVENT_SHARE: Final = 0.25


class Connection(asyncio.Protocol):
    """One client. Requests are answered one after the other, as HTTP/1.1 asks."""

    def __init__(self, responder: Responder, connections: set["Connection"], idle: asyncio.Event) -> None:
        self._responder = responder
        self._connections = connections
        self._idle = idle
        self._reader = RequestReader(BODY_CAP_BYTES)
        self._reply: Reply | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_paused = False
        self._sent_events = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._loop = asyncio.get_running_loop()
        self._connections.add(self)
        self._idle.clear()

    def connection_lost(self, _exc: Exception | None) -> None:
        self._end_reply(is_delivered=False)
        self._connections.discard(self)
        if not self._connections:
            self._idle.set()

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        if self._reply is None:
            self._advance()
        elif self._reader.buffered_bytes > _READ_AHEAD_BYTES and not self._is_paused:
            self._is_paused = True
            self._transport.pause_reading()

    def abort(self) -> None:
        self._transport.abort()

    def _advance(self) -> None:
        """Answer what has come in whole; stops at the first answer that has to wait."""
        while self._reply is None and not self._transport.is_closing():
            try:
                request = self._reader.next_request()
            except WireError as error:
                self._begin(
                    HttpRequest("", "", {}, b"", keeps_alive=False), self._responder.refuse_bytes(error)
                )
                return
            if request is None:
                if self._reader.take_continue():
                    self._transport.write(CONTINUE)
                return
            self._begin(request, self._responder.handle(request))

    def _begin(self, request: HttpRequest, reply: Reply) -> None:
        self._reply, self._sent_events = reply, 0
        if reply.delivery is Delivery.NEVER:
            return
        delay_s = reply.delay_s * _FIRST_EVENT_SHARE if reply.events else reply.delay_s
        if delay_s > 0:
            self._timer = self._loop.call_later(delay_s, self._send, request, reply)
        else:
            self._send(request, reply)

    def _send(self, request: HttpRequest, reply: Reply) -> None:
        self._timer = None
        if reply.events:
            self._send_stream(request, reply)
            return
        body = reply.make_body()
        head = render_head(reply.status, reply.headers, length=len(body), keeps_alive=request.keeps_alive)
        is_cut = reply.delivery is Delivery.CUT
        if request.method == "HEAD":
            body = b""
        self._transport.write(head + (cut_short((body,))[0] if is_cut else body))
        self._complete(request, is_cut=is_cut)

    def _send_stream(self, request: HttpRequest, reply: Reply) -> None:
        headers = reply.headers if request.is_http10 else [*reply.headers, ("transfer-encoding", "chunked")]
        head = render_head(reply.status, headers, length=None, keeps_alive=request.keeps_alive)
        self._transport.write(head)
        events = reply.events if reply.delivery is Delivery.WHOLE else cut_short(reply.events)
        if not reply.delay_s:
            self._write_events(request, events)
            self._end_stream(request, reply)
            return
        rest_s = reply.delay_s * (1 - _FIRST_EVENT_SHARE)
        self._send_next_event(request, reply, events, rest_s / max(1, len(reply.events) - 1))

    def _send_next_event(
        self, request: HttpRequest, reply: Reply, events: Sequence[bytes], gap_s: float
    ) -> None:
        self._timer = None
        self._write_events(request, events[self._sent_events : self._sent_events + 1])
        self._sent_events += 1
        if self._sent_events >= len(events):
            self._end_stream(request, reply)
            return
        self._timer = self._loop.call_later(gap_s, self._send_next_event, request, reply, events, gap_s)

    def _write_events(self, request: HttpRequest, events: Sequence[bytes]) -> None:
        self._transport.write(b"".join(events if request.is_http10 else map(render_chunk, events)))

    def _end_stream(self, request: HttpRequest, reply: Reply) -> None:
        if reply.delivery is Delivery.STALLED:
            return
        is_cut = reply.delivery is Delivery.CUT
        if not request.is_http10 and not is_cut:
            self._transport.write(LAST_CHUNK)
        self._complete(request, is_cut=is_cut)

    def _complete(self, request: HttpRequest, *, is_cut: bool) -> None:
        """The reply is out of our hands; go on with what came in meanwhile."""
        self._end_reply(is_delivered=not is_cut)
        if is_cut or not request.keeps_alive:
            self._transport.close()
            return
        if self._is_paused:
            self._is_paused = False
            self._transport.resume_reading()
        if self._reader.buffered_bytes:
            self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        if self._reply is None:
            self._advance()

    def _end_reply(self, *, is_delivered: bool) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        reply, self._reply = self._reply, None
        if reply is not None and reply.ticket is not None:
            self._responder.finish(reply.ticket, is_delivered=is_delivered)


class SimulatedProvider:
    """A simulated provider on a port of this machine. Start and stop it as often as needed; the limits live on.

    `ledger_path`: JSON lines of every request. `models`: those that exist; without them any name is answered.
    `keeps_details`: whether the ledger keeps texts and times in memory. `base_url` is set by the start.
    """

    def __init__(
        self,
        spec: Simulation,
        *,
        clock: Clock | None = None,
        api_key: str | None = None,
        ledger_path: Path | None = None,
        models: Sequence[str] = (),
        keeps_details: bool = True,
    ) -> None:
        faults = [*rule_faults(spec), *latency_faults(spec), *schedule_faults(spec)]
        if faults:
            raise JobError("simulation", faults)
        self.base_url = ""
        self.ledger = Ledger(ledger_path, keeps_details=keeps_details)
        self._responder = Responder(
            spec,
            self.ledger,
            clock or SystemClock(),
            api_key=api_key,
            models=models,
            nonce=token_hex(8),
        )
        self._connections: set[Connection] = set()
        self._idle: asyncio.Event
        self._server: asyncio.Server | None = None

    @property
    def failure(self) -> StorageError | None:
        """Why the ledger could not be written, if so; every request is then answered with status 500."""
        return self._responder.failure

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> str:
        """The base_url, ending in /v1. Port 0 takes a free one. Raises NoProviderError, OutputError."""
        if self._server is not None:
            raise InvariantError(
                "This simulated provider runs already.", remedy="Stop it before starting it again."
            )
        self.ledger.open()
        self._idle = asyncio.Event()  # of this loop: the next start may be in another one
        self._idle.set()
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(
                lambda: Connection(self._responder, self._connections, self._idle),
                host,
                port,
                backlog=_BACKLOG,
            )
        except OSError as error:
            self.ledger.close()
            raise _cannot_listen(host, port, error) from error
        bound_port = self._server.sockets[0].getsockname()[1]
        shown_host = f"[{host}]" if ":" in host else host
        self.base_url = f"http://{shown_host}:{bound_port}/v1"
        return self.base_url

    async def stop(self) -> None:
        """Ends at once, whatever is still waiting for an answer."""
        if self._server is None:
            return
        server, self._server = self._server, None
        server.close()
        await asyncio.sleep(0)  # connections that were just accepted join the others
        for connection in list(self._connections):
            connection.abort()
        await self._idle.wait()
        await server.wait_closed()
        self.ledger.close()


def _cannot_listen(host: str, port: int, error: OSError) -> NoProviderError:
    if error.errno == errno.EADDRINUSE:
        message = f"Port {port} of {host} is in use."
        remedy = "Choose another port, or 0 for any free one."
    elif error.errno == errno.EACCES:
        message = f"Port {port} of {host} may not be opened by this user."
        remedy = "Choose a port above 1023."
    else:
        message = f"Cannot listen on {host}, port {port}: {error.strerror or error}."
        remedy = "Give an address of this machine, such as 127.0.0.1."
    return NoProviderError(message, remedy=remedy)
