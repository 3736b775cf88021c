"""One HTTP call of one lane: bytes out, bytes in, by a deadline.

This is the hot path, so the exchange is written out: the request is one write, the reply goes from the transport
through llhttp into one value, idle connections are a stack, and one timer serves all deadlines (`exchange`, `reply`,
`pool`, `deadlines`). Connections are made by aiohttp (`opening`).

CPU a call in µs against nginx, 64 and 1,024 in flight (`python -m benchmarks.client --tls`):

                                        http          https
    aiohttp's ClientSession         195    228     241    360
    pyreqwest (Rust)                 73     64      58     76
    this                             44     39      87     87

Python's ssl module is what https costs here. pyreqwest needs less there, but is young and took the interpreter down
at exit in one run of ten: what is paid for must arrive.

A deadline covers everything from the wait for a connection to the last byte. A server that trickles or never reads
meets the same timer as one that is silent.

Nothing is followed, remembered or retried here: a redirect would carry the prompts to another host, a cookie
would tie rows to each other, and a second try is a second purchase. What happens below HTTP becomes a Failure;
what happens above is left to the verdict.
"""

import asyncio
import os
import ssl
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

import aiohttp
from aiohttp.http import HttpProcessingError
from yarl import URL

from batchllm.clock import Clock, SystemClock
from batchllm.errors import InvariantError
from batchllm.provider.catalogue import Api
from batchllm.provider.deadlines import Deadlines
from batchllm.provider.exchange import PIECE_BYTES, HalfSentError, LostError, StalledError, Wire
from batchllm.provider.heads import (
    check_headers,
    check_url,
    merged,
    path_url,
    render_head,
    standard_headers,
    user_agent,
)
from batchllm.provider.opening import Opener
from batchllm.provider.pool import Pool
from batchllm.provider.proxy import proxy_for
from batchllm.provider.reply import BrokenReplyError, Reply, ReplyError, ReplyTooLargeError
from batchllm.provider.streaming import MEDIA_TYPE, Stream, looks_like_events
from batchllm.provider.wire_faults import failure_of, reply_too_large, too_late
from batchllm.records import Billed, Failure, Response

MAX_REPLY_BYTES = 256 * 2**20
#: A timer beyond this is none; loops cannot hold an infinite one.
_LONGEST_S = 7 * 86_400.0
#: Connections that were cut end at the next turns of the loop; one that does not is left to the end of the process.
_FAREWELL_S = 5.0
_CLOSED = "it was closed from here"
_EXCHANGE_FAULTS = (ReplyError, HalfSentError, LostError, StalledError, OSError)
#: RuntimeError: what aiohttp raises on a transport that closes while it is made.
_OPENING_FAULTS = (aiohttp.ClientError, HttpProcessingError, HalfSentError, LostError, OSError, RuntimeError)


class _Parts(NamedTuple):
    """What belongs to the running loop."""

    loop: asyncio.AbstractEventLoop
    opener: Opener
    pool: Pool[Wire]
    deadlines: Deadlines[Wire]
    silences: Deadlines[Wire]


class Streaming(NamedTuple):
    """That replies are asked for as events, of which API, and how long they may stand still."""

    api: Api
    stall_s: float


@dataclass(kw_only=True, eq=False)
class HttpConnection:
    """One lane's wire. `headers` carry the key and win over the standard ones; `secrets` never reach a message.

    `connect_timeout_s` covers name, socket, proxy and TLS, and the wait for a place where there are fewer
    connections than calls. `max_connections` 0: as many as there are calls. `max_reply_bytes` counts what is
    held in memory, that is, after decompression. `streaming`: None where replies come whole.
    """

    base_url: str
    headers: Mapping[str, str] = field(repr=False)
    connect_timeout_s: float
    max_connections: int = 0
    max_reply_bytes: int = MAX_REPLY_BYTES
    secrets: Sequence[str] = field(default=(), repr=False)
    clock: Clock = field(default_factory=SystemClock, repr=False)
    ssl_context: ssl.SSLContext | None = field(default=None, repr=False)
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ, repr=False)
    streaming: Streaming | None = None

    def __post_init__(self) -> None:
        self._parts: _Parts | None = None
        self._is_closed = False
        self._heads: dict[str, bytes] = {}
        self._wires: set[Wire] = set()
        self._opening: set[asyncio.Timeout] = set()
        self._all_gone = asyncio.Event()
        check_url(self.base_url)
        check_headers(self.headers)
        proxy = proxy_for(self.base_url, self.environ)
        self._proxy = URL(proxy) if proxy else None
        # The agent's version is read from a file: not when the first call may lack a descriptor for it.
        self._all_headers = merged(standard_headers(user_agent()), self.headers)

    async def send(self, path: str, body: bytes, deadline_s: float) -> Response | Failure:
        """POST `body` to `path` under the base URL; ends within `deadline_s`. Cancelling it frees its connection."""
        if not deadline_s > 0:
            return too_late()
        started_s = self.clock.monotonic_s()
        parts = self._parts or self._start()
        wire, left_s = parts.pool.take(), deadline_s
        if wire is None:
            begun_s = parts.loop.time()
            found = await self._connect(parts, deadline_s)
            if isinstance(found, Failure):
                return found
            wire = found
            left_s -= parts.loop.time() - begun_s
            if parts is not self._parts:  # closed between the moment the connection was there and this one
                wire.abort()
                parts.pool.put(wire)
                return self._not_opened(LostError(_CLOSED), deadline_s, is_late=False)
        parts.deadlines.start(wire, min(left_s, _LONGEST_S))
        stream = None if self.streaming is None else self._listen(parts, wire, self.streaming)
        try:
            head = (self._heads.get(path) or self._head(path)) + b"%d\r\n\r\n" % len(body)
            if len(body) <= PIECE_BYTES:
                reply = await wire.ask(head + body)
            else:
                reply = await wire.upload(head, body)
            if stream is not None:
                return self._streamed(stream, reply, started_s)
        except _EXCHANGE_FAULTS as error:
            failure = self._failed(error, wire.status, deadline_s)
            return failure if stream is None else self._broken_off(stream, wire, failure, started_s)
        finally:
            parts.deadlines.end(wire)
            if stream is not None:
                self._stop_listening(parts, wire)
            parts.pool.put(wire)
        return Response(reply.status, reply.headers, reply.body, self.clock.monotonic_s() - started_s)

    @property
    def idle_connections(self) -> int:
        return self._parts.pool.idle_count if self._parts is not None else 0

    def drop_idle(self) -> None:
        """Close the connections that carry no call: after a pause of the process they are most likely dead."""
        if self._parts is not None:
            self._parts.pool.drop_idle()

    async def close(self) -> None:
        """End all connections. Calls in flight end as failures."""
        self._is_closed = True
        parts, self._parts = self._parts, None
        if parts is None:
            return
        for wire in parts.deadlines.open_calls():
            wire.fail(LostError(_CLOSED))
        for scope in self._opening:
            scope.reschedule(parts.loop.time())
        parts.pool.close(LostError(_CLOSED))
        parts.deadlines.close()
        parts.silences.close()
        await parts.opener.close()
        if self._wires:
            with suppress(TimeoutError):
                async with asyncio.timeout(_FAREWELL_S):
                    await self._all_gone.wait()

    def _start(self) -> _Parts:
        if self._is_closed:
            raise InvariantError(f"a call was sent to {self._host} after the connection was closed")
        loop = asyncio.get_running_loop()
        self._parts = _Parts(
            loop,
            Opener(path_url(self.base_url, ""), self._proxy, self.ssl_context),
            Pool(loop, self.max_connections),
            Deadlines(loop, _overdue),
            Deadlines(loop, self._stalled),
        )
        return self._parts

    async def _connect(self, parts: _Parts, deadline_s: float) -> Wire | Failure:
        """A connection of this lane's own or one that comes back in the meantime, within both limits."""
        scope = asyncio.timeout(min(self.connect_timeout_s, deadline_s, _LONGEST_S))
        self._opening.add(scope)
        try:
            async with scope:
                wire = await parts.pool.place()
                return wire if wire is not None and wire.is_fit else await self._open(parts)
        except _OPENING_FAULTS as error:
            return self._not_opened(error, deadline_s, is_late=scope.expired())
        finally:
            self._opening.discard(scope)

    async def _open(self, parts: _Parts) -> Wire:
        """In a place that was given for it, and that is returned if nothing comes of it."""
        try:
            transport = await parts.opener.open()
        except BaseException:
            parts.pool.free()
            raise
        wire = Wire(transport, parts.loop, self.max_reply_bytes, self._ended)
        self._wires.add(wire)
        self._all_gone.clear()
        return wire

    def _ended(self, wire: Wire) -> None:
        self._wires.discard(wire)
        if not self._wires:
            self._all_gone.set()
        if self._parts is not None:
            self._parts.pool.lost(wire)

    def _not_opened(self, error: Exception, deadline_s: float, *, is_late: bool) -> Failure:
        """Nothing was sent, so nothing can be billed."""
        if self._is_closed:
            error = LostError(_CLOSED)
        elif is_late and deadline_s <= self.connect_timeout_s:
            return too_late()
        elif is_late:
            error = aiohttp.ConnectionTimeoutError()
        return self._failed(error, None, deadline_s)._replace(billed=Billed.NO)

    def _failed(self, error: Exception, status: int | None, deadline_s: float) -> Failure:
        if isinstance(error, ReplyTooLargeError):
            return reply_too_large(status or 0, self.max_reply_bytes)
        failure = failure_of(error, host=self._host, deadline_s=deadline_s, secrets=self._all_secrets)
        return failure if status is None else failure._replace(status=status)

    def _listen(self, parts: _Parts, wire: Wire, streaming: Streaming) -> Stream:
        stream = Stream(
            streaming.api,
            min(streaming.stall_s, _LONGEST_S),
            now_s=self.clock.monotonic_s,
            silence_s=partial(parts.silences.start, wire),
        )
        wire.listen(MEDIA_TYPE, stream.feed)
        return stream

    def _stop_listening(self, parts: _Parts, wire: Wire) -> None:
        parts.silences.end(wire)
        wire.listen(MEDIA_TYPE, None)

    def _stalled(self, wire: Wire) -> None:
        stall_s = 0.0 if self.streaming is None else self.streaming.stall_s
        wire.fail(StalledError(f"not a word for {stall_s:g} s (stall_timeout_s)"))

    def _streamed(self, stream: Stream, reply: Reply, started_s: float) -> Response:
        """Raises BrokenReplyError for one whose last event is missing."""
        if not stream.is_fed and reply.status < 300 and looks_like_events(reply.body):
            stream.feed_whole(reply.body)
        if not stream.is_fed:  # an error, or a server that does not stream
            return Response(reply.status, reply.headers, reply.body, self.clock.monotonic_s() - started_s)
        if not stream.end():
            raise BrokenReplyError("its stream ended before the answer did")
        return self._whole(stream, reply.status, reply.headers, started_s)

    def _broken_off(
        self, stream: Stream, wire: Wire, failure: Failure, started_s: float
    ) -> Response | Failure:
        """What comes after the last event is not waited for, and not missed."""
        if stream.is_whole:
            return self._whole(stream, wire.status or 200, wire.headers, started_s)
        return stream.salvaged(failure, self._all_secrets, started_s)

    def _whole(self, stream: Stream, status: int, headers: Mapping[str, str], started_s: float) -> Response:
        now_s = self.clock.monotonic_s()
        return Response(status, headers, stream.body(), now_s - started_s, stream.ttft_s(started_s))

    def _head(self, path: str) -> bytes:
        url = path_url(self.base_url, path)
        head = self._heads[path] = render_head(url, self._all_headers, self._proxy)
        return head

    @cached_property
    def _host(self) -> str:
        return urlsplit(self.base_url).netloc.rpartition("@")[2]

    @cached_property
    def _all_secrets(self) -> tuple[str, ...]:
        """A proxy's password is as secret as a key."""
        password = self._proxy.raw_password if self._proxy else None
        return (*self.secrets, *((password, unquote(password)) if password else ()))


def _overdue(wire: Wire) -> None:
    wire.fail(TimeoutError())
