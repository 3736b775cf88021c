"""Connections that aiohttp makes and that the exchange takes over: each way to the host, over loopback."""

import asyncio
import gc
import os
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from wire_rig import (
    ANSWER,
    BODY,
    CERTIFICATE,
    LONG_S,
    PROVIDER_CERTIFICATE,
    PROVIDER_KEY,
    SHORT_S,
    Ledger,
    answer,
    assert_again,
    lane,
    saying,
    server_context,
    serving,
    until,
)

from batchllm.provider.connection import HttpConnection
from batchllm.records import Billed, Failure, FailureCode, Response


class Proxy:
    """Answers CONNECT with a tunnel to a port, whatever host was named."""

    def __init__(self, port: int, raw: bytes = b"HTTP/1.1 200 Connection established\r\n\r\n") -> None:
        self.port = port
        self.raw = raw
        self.heads: list[str] = []

    async def behave(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(self.raw)
        if b" 200 " not in self.raw:
            return
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))
        finally:
            far_writer.transport.abort()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()
    writer.transport.abort()


@pytest.fixture
def provider_context(tmp_path: Path) -> ssl.SSLContext:
    return server_context(tmp_path, PROVIDER_CERTIFICATE + PROVIDER_KEY)


@pytest.fixture
def trusting() -> ssl.SSLContext:
    return ssl.create_default_context(cadata=CERTIFICATE + PROVIDER_CERTIFICATE)


@asynccontextmanager
async def tunnelled(
    proxy_port: int, trusting: ssl.SSLContext, scheme: str = "http"
) -> AsyncIterator[HttpConnection]:
    environ = {"https_proxy": f"{scheme}://me:hush-hush@localhost:{proxy_port}"}
    async with lane(0, url="https://provider.test/v1", environ=environ, ssl_context=trusting) as connection:
        yield connection


class TestTunnel:
    @pytest.mark.parametrize("scheme", ["http", "https"])
    async def test_host_is_reached_through_a_tunnel_and_again(
        self, scheme: str, provider_context: ssl.SSLContext, trusting: ssl.SSLContext, tmp_path: Path
    ) -> None:
        ledger = Ledger()
        options: dict[str, Any] = {"ssl": server_context(tmp_path)} if scheme == "https" else {}
        async with serving(saying(answer(), ledger), ssl=provider_context) as port:
            proxy = Proxy(port)
            async with (
                serving(proxy.behave, **options) as proxy_port,
                tunnelled(proxy_port, trusting, scheme) as connection,
            ):
                got = [await connection.send("/x", BODY, LONG_S) for _ in range(3)]
        assert [one.body for one in got if isinstance(one, Response)] == [ANSWER] * 3
        assert ledger.connections == len(proxy.heads) == 1
        assert proxy.heads[0].startswith("CONNECT provider.test:443 HTTP/1.1\r\n")
        assert "proxy-authorization: basic bwu6ahvzac1odxno" in proxy.heads[0].lower()
        assert ledger.heads[0].startswith("POST /v1/x HTTP/1.1\r\n")
        assert "proxy" not in ledger.heads[0].lower()

    async def test_certificate_is_that_of_the_host_and_not_of_the_proxy(
        self, trusting: ssl.SSLContext, tmp_path: Path
    ) -> None:
        async with (
            serving(saying(answer()), ssl=server_context(tmp_path)) as port,
            serving(Proxy(port).behave) as proxy_port,
            tunnelled(proxy_port, trusting) as connection,
        ):
            got = await connection.send("/x", BODY, LONG_S)
        assert isinstance(got, Failure)
        assert (got.lane_is_dead, got.billed) == (True, Billed.NO)

    @pytest.mark.parametrize("raw", [b"", b"HTTP/1.1 407 Who are you\r\n\r\n", b"SSH-2.0\r\n\r\n"])
    async def test_proxy_that_makes_no_tunnel_costs_nothing(
        self, raw: bytes, trusting: ssl.SSLContext
    ) -> None:
        proxy = Proxy(0, raw)
        async with serving(proxy.behave) as proxy_port, tunnelled(proxy_port, trusting) as connection:
            got = await connection.send("/x", BODY, LONG_S)
        assert isinstance(got, Failure)
        assert got.billed is Billed.NO
        assert got.code in (FailureCode.CONNECTION, FailureCode.MALFORMED)
        assert "hush" not in got.message
        assert len(proxy.heads) == 1

    async def test_proxy_that_says_nothing_meets_the_limit_of_connecting(self) -> None:
        async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await asyncio.Event().wait()

        async with serving(behave) as port:
            environ = {"https_proxy": f"http://127.0.0.1:{port}"}
            async with lane(
                0, url="https://provider.test", environ=environ, connect_timeout_s=SHORT_S
            ) as connection:
                got = await connection.send("/x", BODY, LONG_S)
        assert isinstance(got, Failure)
        assert_again(got, FailureCode.CONNECTION, Billed.NO)
        assert "connect_timeout_s" in got.message


class TestTls:
    async def test_host_is_named_in_the_handshake(self, tmp_path: Path, trusting: ssl.SSLContext) -> None:
        context, names = server_context(tmp_path), list[str | None]()
        context.sni_callback = lambda _, name, __: names.append(name)
        async with (
            serving(saying(answer()), ssl=context) as port,
            lane(port, url="https://localhost:{port}", ssl_context=trusting) as connection,
        ):
            assert isinstance(await connection.send("/x", BODY, LONG_S), Response)
        assert names == ["localhost"]

    async def test_handshake_that_hangs_meets_the_limit_of_connecting(self) -> None:
        async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await asyncio.Event().wait()

        async with (
            serving(behave) as port,
            lane(port, url="https://127.0.0.1:{port}", connect_timeout_s=SHORT_S) as connection,
        ):
            got = await connection.send("/x", BODY, LONG_S)
        assert isinstance(got, Failure)
        assert_again(got, FailureCode.CONNECTION, Billed.NO)

    @pytest.mark.parametrize("size", [1_000, 3_000_000])
    async def test_calls_of_all_sizes_pass_and_the_connection_is_kept(
        self, size: int, tmp_path: Path, trusting: ssl.SSLContext
    ) -> None:
        ledger, body = Ledger(), b"x" * size
        async with (
            serving(saying(answer(body), ledger), ssl=server_context(tmp_path)) as port,
            lane(port, url="https://localhost:{port}", ssl_context=trusting) as connection,
        ):
            for _ in range(2):
                got = await connection.send("/x", body, LONG_S)
                assert isinstance(got, Response)
                assert got.body == body
        assert (ledger.connections, ledger.bodies) == (1, [body, body])

    async def test_idle_connection_that_the_server_closes_is_dropped(
        self, tmp_path: Path, trusting: ssl.SSLContext
    ) -> None:
        ledger = Ledger()
        async with (
            serving(saying(answer(), ledger, then_close=True), ssl=server_context(tmp_path)) as port,
            lane(port, url="https://localhost:{port}", ssl_context=trusting) as connection,
        ):
            for _ in range(3):
                assert isinstance(await connection.send("/x", BODY, LONG_S), Response)
                await until(lambda: connection.idle_connections == 0)
        assert ledger.connections == 3

    async def test_authority_of_the_environment_is_trusted(self, tmp_path: Path) -> None:
        """SSL_CERT_FILE is read when a process starts, so it takes one."""
        (tmp_path / "authority.pem").write_text(CERTIFICATE)
        script = (
            "import asyncio, sys\n"
            "from batchllm.provider.connection import HttpConnection\n"
            "async def main():\n"
            "    wire = HttpConnection(base_url=sys.argv[1], headers={}, connect_timeout_s=20, environ={})\n"
            "    print(type(await wire.send('/x', b'{}', 20.0)).__name__)\n"
            "    await wire.close()\n"
            "asyncio.run(main())\n"
        )
        told = []
        async with serving(saying(answer()), ssl=server_context(tmp_path)) as port:
            for more in ({}, {"SSL_CERT_FILE": str(tmp_path / "authority.pem")}):
                process = await asyncio.create_subprocess_exec(
                    sys.executable, "-c", script, f"https://localhost:{port}",
                    env=os.environ | more, stdout=subprocess.PIPE,
                )  # fmt: skip
                told.append((await process.communicate())[0].decode().strip())
        assert told == ["Failure", "Response"]


class TestTakeover:
    async def test_nothing_of_the_opening_is_left_behind(self) -> None:
        """aiohttp warns of connections that are forgotten, and the tests take warnings as errors."""
        ledger = Ledger()
        async with serving(saying(answer(), ledger)) as port, lane(port) as connection:
            for _ in range(5):
                assert isinstance(await connection.send("/x", BODY, LONG_S), Response)
                connection.drop_idle()
            gc.collect()
            assert connection.idle_connections == 0
        assert ledger.connections == 5

    async def test_cancelled_opening_leaves_its_place(self) -> None:
        ledger = Ledger()
        async with (
            serving(saying(answer(), ledger)) as port,
            lane(port, url="http://localhost:{port}", max_connections=1) as connection,
        ):
            for turns in range(12):
                call = asyncio.create_task(connection.send("/x", BODY, LONG_S))
                for _ in range(turns):
                    await asyncio.sleep(0)
                call.cancel()
                await asyncio.gather(call, return_exceptions=True)
            assert isinstance(await connection.send("/x", BODY, LONG_S), Response)

    async def test_many_calls_at_once_are_all_answered(self) -> None:
        ledger = Ledger()
        async with (
            serving(saying(answer(), ledger), backlog=200) as port,
            lane(port, url="http://localhost:{port}", max_connections=20) as connection,
        ):
            got = await asyncio.gather(*(connection.send("/x", BODY, LONG_S) for _ in range(200)))
        assert all(isinstance(one, Response) for one in got)
        assert ledger.connections <= 20
