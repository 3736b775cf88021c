"""One HTTP call of one lane: bytes out, bytes in, by a deadline.

This is the hot path, so it asks aiohttp for as little as it can: one session a lane, made inside the running
loop; headers, URL and time limits made once; one timer a call, which covers everything from the pool to the last
byte. A server that trickles or never reads meets the same timer as one that is silent.

Nothing is followed, remembered or retried here: a redirect would carry the prompts to another host, a cookie
would tie rows to each other, and a second try is a second purchase. What happens below HTTP becomes a Failure;
what happens above is left to the verdict.
"""

import os
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from io import BytesIO
from urllib.parse import unquote, urlsplit

import aiohttp
from aiohttp.http import HttpProcessingError
from yarl import URL

from batchllm.clock import Clock, SystemClock
from batchllm.errors import CredentialsError, InvariantError, NoProviderError
from batchllm.provider.proxy import proxy_for
from batchllm.provider.wire_faults import failure_of, reply_too_large, too_late
from batchllm.records import Failure, Response

MAX_REPLY_BYTES = 256 * 2**20
#: Idle connections are kept this long. Servers that close sooner are noticed; the race that is left grows with it.
_KEEP_ALIVE_S = 15.0
_DNS_TTL_S = 60
#: Larger bodies are written in pieces, so that one upload does not hold up the loop.
_IN_ONE_PIECE = 2**20
#: A timer beyond this is none; aiohttp cannot hold an infinite one.
_LONGEST_S = 7 * 86_400.0
#: RuntimeError: what a reader meets when its connection is closed under it.
_FAULTS = (aiohttp.ClientError, HttpProcessingError, OSError, RuntimeError)


def user_agent() -> str:
    try:
        return f"batchllm/{version('batchllm')}"
    except PackageNotFoundError:  # run from a source tree
        return "batchllm/0"


@dataclass(kw_only=True, eq=False)
class HttpConnection:
    """One lane's wire. `headers` carry the key and win over the standard ones; `secrets` never reach a message.

    `connect_timeout_s` covers name, socket, proxy and TLS, and the wait for a place where there are fewer
    connections than calls. `max_connections` 0: as many as there are calls. `max_reply_bytes` counts what is
    held in memory, that is, after decompression.
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

    def __post_init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None
        self._is_closed = False
        self._urls: dict[str, URL] = {}
        self._timeout = aiohttp.ClientTimeout()
        self._deadline_s = -1.0
        _check_url(self.base_url)
        _check_headers(self.headers)
        self._proxy = proxy_for(self.base_url, self.environ)
        self._user_agent = user_agent()  # reads a file: not when the first call may lack a descriptor for it

    async def send(self, path: str, body: bytes, deadline_s: float) -> Response | Failure:
        """POST `body` to `path` under the base URL; ends within `deadline_s`. Cancelling it frees its connection."""
        if not deadline_s > 0:
            return too_late()
        session = self._session or self._open()
        reply: aiohttp.ClientResponse | None = None
        started_s = self.clock.monotonic_s()
        try:
            reply = await session.post(
                self._urls.get(path) or self._url(path),
                data=body if len(body) <= _IN_ONE_PIECE else BytesIO(body),
                allow_redirects=False,
                timeout=self._timeout if deadline_s == self._deadline_s else self._limits(deadline_s),
            )
            content = await self._read(reply.content)
        except _FAULTS as error:
            failure = failure_of(error, host=self._host, deadline_s=deadline_s, secrets=self._all_secrets)
            return failure if reply is None else failure._replace(status=reply.status)
        finally:
            if reply is not None and not reply.closed:
                reply.close()  # not read to its end: the connection cannot be used again
        if content is None:
            return reply_too_large(reply.status, self.max_reply_bytes)
        latency_s = self.clock.monotonic_s() - started_s
        headers = {name.lower(): value for name, value in reply.headers.items()}
        return Response(reply.status, headers, content, latency_s)

    async def close(self) -> None:
        """End all connections. Calls in flight end as failures."""
        self._is_closed = True
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _read(self, stream: aiohttp.StreamReader) -> bytes | None:
        """The whole body; None when it is larger than may be held. Most replies are one block."""
        block = await stream.readany()
        if stream.at_eof() and len(block) <= self.max_reply_bytes:
            return block
        blocks, size = [block], len(block)
        while block:
            if size > self.max_reply_bytes:
                return None
            block = await stream.readany()
            blocks.append(block)
            size += len(block)
        return b"".join(blocks)

    def _open(self) -> aiohttp.ClientSession:
        if self._is_closed:
            raise InvariantError(f"a call was sent to {self._host} after the connection was closed")
        connector = aiohttp.TCPConnector(
            limit=self.max_connections,
            keepalive_timeout=_KEEP_ALIVE_S,
            use_dns_cache=True,
            ttl_dns_cache=_DNS_TTL_S,
            ssl=self.ssl_context or True,
        )
        standard = {
            "User-Agent": self._user_agent,
            "Content-Type": "application/json",
            "Accept": "application/json",
        }
        given = {name.lower() for name in self.headers}
        headers = {name: value for name, value in standard.items() if name.lower() not in given}
        self._session = aiohttp.ClientSession(
            connector=connector,
            headers={**headers, **self.headers},
            cookie_jar=aiohttp.DummyCookieJar(),
            proxy=self._proxy,
            trust_env=False,
        )
        return self._session

    def _url(self, path: str) -> URL:
        root, mark, query = self.base_url.partition("?")
        url = self._urls[path] = URL(f"{root.rstrip('/')}{path}{mark}{query}")
        return url

    def _limits(self, deadline_s: float) -> aiohttp.ClientTimeout:
        """Lanes have one deadline, so the last one is nearly always the next."""
        self._deadline_s = deadline_s
        self._timeout = aiohttp.ClientTimeout(
            total=min(deadline_s, _LONGEST_S),
            connect=self.connect_timeout_s,
            ceil_threshold=_LONGEST_S * 2,  # never: a deadline is not rounded up to the next second
        )
        return self._timeout

    @cached_property
    def _host(self) -> str:
        return urlsplit(self.base_url).netloc.rpartition("@")[2]

    @cached_property
    def _all_secrets(self) -> tuple[str, ...]:
        """A proxy's password is as secret as a key."""
        password = urlsplit(self._proxy).password if self._proxy else None
        return (*self.secrets, *((password, unquote(password)) if password else ()))


def _check_url(base_url: str) -> None:
    try:
        url = URL(base_url)
    except ValueError:
        url = URL()
    if url.scheme not in ("http", "https") or not url.host or url.user or url.password:
        raise NoProviderError(
            "a base_url is no http(s) address, or has a name or password in it",
            remedy="give it as https://host/v1, and the key as api_key",
        )


def _check_headers(headers: Mapping[str, str]) -> None:
    """aiohttp would find these at the first call, in the middle of a run, and print the value."""
    for name, value in headers.items():
        if not name or not name.isascii() or not name.isprintable() or set(name) & set(' "(),/:;<=>?@[\\]{}'):
            raise CredentialsError(
                f"{name!r} cannot be the name of a header", remedy="correct the lane's headers"
            )
        if any(char < " " and char != "\t" for char in value) or "\x7f" in value:
            raise CredentialsError(
                f"the value of the header {name} has a line break or another control character in it",
                remedy="a key that was copied from a file often ends in a line break: remove it",
            )
