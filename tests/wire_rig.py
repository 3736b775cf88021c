"""Servers over real sockets, one for each way to behave, and a lane that calls them."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from batchllm.provider.connection import HttpConnection
from batchllm.records import Action, Billed, Failure, FailureCode, Response

Behaviour = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
BODY = b'{"model":"m","messages":[]}'
ANSWER = b'{"ok":true}'
KEY = "sk-canary-0123456789abcdef"
LONG_S = 20.0
SHORT_S = 0.15


class Ledger:
    """What a server saw."""

    def __init__(self) -> None:
        self.connections = 0
        self.heads: list[str] = []
        self.bodies: list[bytes] = []

    async def request(self, reader: asyncio.StreamReader) -> bool:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        except asyncio.IncompleteReadError:
            return False
        length = next(
            (
                int(line.split(":")[1])
                for line in head.lower().split("\r\n")
                if line.startswith("content-length")
            ),
            0,
        )
        self.bodies.append(await reader.readexactly(length))
        self.heads.append(head)
        return True


@asynccontextmanager
async def serving(behave: Behaviour, *, host: str = "127.0.0.1", **options: Any) -> AsyncIterator[int]:
    tasks: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await behave(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            tasks.discard(task)
            writer.transport.abort()

    server = await asyncio.start_server(accept, host, 0, **options)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def answer(body: bytes = ANSWER, *, status: str = "200 OK", headers: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\n{headers}\r\n".encode() + body


def saying(raw: bytes, ledger: Ledger | None = None, *, then_close: bool = False) -> Behaviour:
    """Answer each request with the same bytes."""
    seen = ledger or Ledger()

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.connections += 1
        while await seen.request(reader):
            writer.write(raw)
            await writer.drain()
            if then_close:
                writer.close()
                await writer.wait_closed()
                return

    return behave


@asynccontextmanager
async def lane(
    port: int, url: str = "http://127.0.0.1:{port}/v1", **options: Any
) -> AsyncIterator[HttpConnection]:
    given: dict[str, Any] = {
        "base_url": url.format(port=port),
        "headers": {"Authorization": f"Bearer {KEY}"},
        "connect_timeout_s": 5.0,
        "secrets": (KEY,),
        "environ": {},
    }
    connection = HttpConnection(**(given | options))
    try:
        yield connection
    finally:
        await connection.close()


async def outcome(
    behave: Behaviour, *, deadline_s: float = LONG_S, body: bytes = BODY, **options: Any
) -> Response | Failure:
    async with serving(behave) as port, lane(port, **options) as connection:
        return await connection.send("/chat/completions", body, deadline_s)


async def response(behave: Behaviour, **options: Any) -> Response:
    got = await outcome(behave, **options)
    assert isinstance(got, Response), got
    return got


async def failure(behave: Behaviour, **options: Any) -> Failure:
    got = await outcome(behave, **options)
    assert isinstance(got, Failure), got
    assert KEY not in got.message
    assert len(got.message) <= 300
    return got


def assert_again(got: Failure, code: FailureCode, billed: Billed) -> None:
    assert (got.action, got.code, got.billed, got.lane_is_dead) == (Action.AGAIN, code, billed, False), got


#: Of localhost, signed by itself, for a hundred years.
CERTIFICATE = """\
-----BEGIN CERTIFICATE-----
MIIBljCCATugAwIBAgIUM/KgQGe6aM3izdnVdva/D9XOeuEwCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyMzE1NTIwMVoYDzIxMjYxMDMw
MTU1MjAxWjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAASKWC8x4NGk8ScsVyDohqL7qD199/pQcoNoXxqKwuwTJxpQ1zSaVUFI
zJcsoSXKRa5EXe23UKGl9dRmHyjJmh0ro2kwZzAdBgNVHQ4EFgQUK1Bp7/km0FUR
XQQg3s7PXOWdeyUwHwYDVR0jBBgwFoAUK1Bp7/km0FURXQQg3s7PXOWdeyUwDwYD
VR0TAQH/BAUwAwEB/zAUBgNVHREEDTALgglsb2NhbGhvc3QwCgYIKoZIzj0EAwID
SQAwRgIhAOJbZBimnrouyxeSZudmOm6inAVLHQqOjCEUhrGR4H4sAiEAvrJ3Yzzk
pvhK0VxiLKGKCa/8Pr8lyEq9flw5ICjHBBI=
-----END CERTIFICATE-----
"""
PRIVATE_KEY = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgh5Ey4q5xJ4gUGp4B
O+n7VIazcoRN0tJH0Hei8jc9YSKhRANCAASKWC8x4NGk8ScsVyDohqL7qD199/pQ
coNoXxqKwuwTJxpQ1zSaVUFIzJcsoSXKRa5EXe23UKGl9dRmHyjJmh0r
-----END PRIVATE KEY-----
"""
#: Of provider.test, a host that loopback rules do not exempt from proxies.
PROVIDER_CERTIFICATE = """\
-----BEGIN CERTIFICATE-----
MIIBoTCCAUegAwIBAgIUXU01vr6UfJN1PRgXpLgcINzkm1cwCgYIKoZIzj0EAwIw
GDEWMBQGA1UEAwwNcHJvdmlkZXIudGVzdDAgFw0yNjExMjUxOTA4NDJaGA8yMTI2
MTEwMTE5MDg0MlowGDEWMBQGA1UEAwwNcHJvdmlkZXIudGVzdDBZMBMGByqGSM49
AgEGCCqGSM49AwEHA0IABHzOdR0q7La0qIVU6T2x8KH6OPb/Kaipu3l9OLGBeRvg
ir56U1kN+bTuAyY5p44siQGFmzMX/sLwIeBsZdw0ZM2jbTBrMB0GA1UdDgQWBBQk
zOFr6C1Mr4mdLKCmsrVGAeRHRTAfBgNVHSMEGDAWgBQkzOFr6C1Mr4mdLKCmsrVG
AeRHRTAPBgNVHRMBAf8EBTADAQH/MBgGA1UdEQQRMA+CDXByb3ZpZGVyLnRlc3Qw
CgYIKoZIzj0EAwIDSAAwRQIgR8KNvF51h4mRmK1wr1P7bmqQBJSkvxSa+jipbK51
0SUCIQCtUxbLEkpKPbgMnUnvImHaHlMY/mLFwkH8pH5mt7x0Dg==
-----END CERTIFICATE-----
"""
PROVIDER_KEY = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgg8uY1NAvBlPAA6gP
bSlbDUja6R0FWIx3lpWquqeQBf6hRANCAAR8znUdKuy2tKiFVOk9sfCh+jj2/ymo
qbt5fTixgXkb4Iq+elNZDfm07gMmOaeOLIkBhZszF/7C8CHgbGXcNGTN
-----END PRIVATE KEY-----
"""


def server_context(folder: Path, pair: str = CERTIFICATE + PRIVATE_KEY) -> ssl.SSLContext:
    """Of a server that shows the certificate of this pair."""
    (folder / "pair.pem").write_text(pair)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "pair.pem")
    return context


async def until(is_true: Callable[[], bool]) -> None:
    """Wait for what another end of a socket brings about; the test's own time limit bounds it."""
    while not is_true():  # noqa: ASYNC110 - the other end has no event to hand over
        await asyncio.sleep(0.001)
