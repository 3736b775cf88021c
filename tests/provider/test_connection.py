"""Over real sockets: servers that misbehave, one in each way that matters."""

import asyncio
import gzip
import resource
import socket
import ssl
import struct
import tracemalloc
import zlib
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import pytest
from wire_rig import (
    ANSWER,
    BODY,
    CERTIFICATE,
    KEY,
    LONG_S,
    SHORT_S,
    Ledger,
    answer,
    assert_again,
    failure,
    lane,
    outcome,
    response,
    saying,
    server_context,
    serving,
)

from batchllm.errors import CredentialsError, InvariantError, NoProviderError
from batchllm.provider.connection import HttpConnection
from batchllm.records import Action, Billed, Failure, FailureCode, Response


class TestGoodReply:
    async def test_body_goes_to_the_path_under_the_base_url(self) -> None:
        ledger = Ledger()
        await response(saying(answer(), ledger))
        assert ledger.heads[0].startswith("POST /v1/chat/completions HTTP/1.1\r\n")
        assert ledger.bodies == [BODY]

    async def test_query_of_the_base_url_stays_behind_the_path(self) -> None:
        ledger = Ledger()
        async with (
            serving(saying(answer(), ledger)) as port,
            lane(port, url="http://127.0.0.1:{port}/openai/?api-version=1") as connection,
        ):
            await connection.send("/embeddings", BODY, LONG_S)
        assert ledger.heads[0].startswith("POST /openai/embeddings?api-version=1 HTTP/1.1\r\n")

    async def test_headers_name_the_sender_the_type_and_the_key(self) -> None:
        ledger = Ledger()
        await response(saying(answer(), ledger))
        head = ledger.heads[0].lower()
        assert "user-agent: batchllm/" in head
        assert "content-type: application/json" in head
        assert f"authorization: bearer {KEY}" in head

    async def test_headers_of_the_lane_win(self) -> None:
        ledger = Ledger()
        await response(saying(answer(), ledger), headers={"user-agent": "mine/1"})
        assert ledger.heads[0].lower().count("user-agent:") == 1
        assert "mine/1" in ledger.heads[0]

    async def test_reply_comes_whole_with_lower_case_headers(self) -> None:
        got = await response(saying(answer(b"[1]", status="429 Slow", headers="X-Request-ID: abc\r\n")))
        assert (got.status, got.body, got.headers["x-request-id"]) == (429, b"[1]", "abc")
        assert type(got.headers) is dict

    async def test_latency_is_told_by_the_clock(self) -> None:
        class Clock:
            def __init__(self) -> None:
                self.times = [5.0, 7.5]

            def monotonic_s(self) -> float:
                return self.times.pop(0)

            def wall_s(self) -> float:
                return 0.0

        assert (await response(saying(answer()), clock=Clock())).latency_s == 2.5

    async def test_one_connection_serves_several_calls(self) -> None:
        ledger = Ledger()
        async with serving(saying(answer(), ledger)) as port, lane(port) as connection:
            for _ in range(3):
                assert isinstance(await connection.send("/x", BODY, LONG_S), Response)
        assert (ledger.connections, len(ledger.bodies)) == (1, 3)

    async def test_deadline_may_differ_from_call_to_call(self) -> None:
        calls = 0

        async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal calls
            while await Ledger().request(reader):
                calls += 1
                if calls != 2:
                    writer.write(answer())

        async with serving(behave) as port, lane(port) as connection:
            got = [await connection.send("/x", BODY, after) for after in (600.0, SHORT_S, 600.0)]
        assert [type(one) for one in got] == [Response, Failure, Response]

    async def test_endless_deadline_is_allowed(self) -> None:
        assert (await response(saying(answer()), deadline_s=float("inf"))).body == ANSWER

    async def test_cookies_are_not_kept(self) -> None:
        ledger = Ledger()
        raw = answer(headers="set-cookie: who=me; path=/\r\n")
        async with (
            serving(saying(raw, ledger)) as port,
            lane(port, url="http://localhost:{port}") as connection,
        ):
            await connection.send("/x", BODY, LONG_S)
            await connection.send("/x", BODY, LONG_S)
        assert not any("cookie" in head.lower() for head in ledger.heads)

    async def test_chunked_reply_is_joined(self) -> None:
        raw = b'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\n{"a\r\n5\r\n":12}\r\n0\r\n\r\n'
        assert (await response(saying(raw))).body == b'{"a":12}'

    async def test_reply_without_length_ends_with_the_connection(self) -> None:
        raw = b"HTTP/1.1 200 OK\r\n\r\n" + ANSWER
        assert (await response(saying(raw, then_close=True))).body == ANSWER

    async def test_compressed_reply_is_unpacked(self) -> None:
        raw = answer(gzip.compress(ANSWER * 1_000), headers="content-encoding: gzip\r\n")
        assert (await response(saying(raw))).body == ANSWER * 1_000

    async def test_blank_lines_before_the_json_are_kept_for_the_verdict(self) -> None:
        """A queue that keeps the connection awake (DeepSeek)."""

        async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await Ledger().request(reader)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 13\r\n\r\n\n")
            await writer.drain()
            writer.write(b"\n" + ANSWER)

        assert (await response(behave)).body == b"\n\n" + ANSWER

    async def test_early_hints_before_the_reply_are_passed_over(self) -> None:
        raw = b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n" + answer()
        assert (await response(saying(raw))).status == 200

    async def test_refusal_before_the_upload_ends_is_read(self) -> None:
        async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer(b"too big", status="413 Payload Too Large"))
            await reader.read(-1)

        assert (await response(behave, body=b"x" * 20_000_000)).status == 413

    @pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
    async def test_localhost_is_found_on_either_family(self, host: str) -> None:
        known = {entry[4][0] for entry in socket.getaddrinfo("localhost", 0)}
        if host not in known:
            pytest.skip(f"localhost is not {host} here")
        async with (
            serving(saying(answer()), host=host) as port,
            lane(port, url="http://localhost:{port}") as connection,
        ):
            assert isinstance(await connection.send("/x", BODY, LONG_S), Response)

    async def test_address_of_the_sixth_version_is_reached(self) -> None:
        if not socket.has_ipv6:
            pytest.skip("no IPv6 here")
        async with (
            serving(saying(answer()), host="::1") as port,
            lane(port, url="http://[::1]:{port}/v1") as connection,
        ):
            assert isinstance(await connection.send("/x", BODY, LONG_S), Response)


class TestRedirect:
    async def test_redirect_is_not_followed(self) -> None:
        other = Ledger()
        async with serving(saying(answer(), other)) as elsewhere:
            raw = answer(b"", status="307 Moved", headers=f"location: http://127.0.0.1:{elsewhere}/v1\r\n")
            got = await response(saying(raw))
        assert (got.status, other.connections) == (307, 0)
        assert got.headers["location"].startswith("http://127.0.0.1")


class TestNoConnection:
    async def test_refused_connection_costs_nothing(self) -> None:
        async with serving(saying(b"")) as port:
            pass
        async with lane(port) as connection:
            got = await connection.send("/x", BODY, LONG_S)
        assert isinstance(got, Failure)
        assert_again(got, FailureCode.CONNECTION, Billed.NO)
        assert f"127.0.0.1:{port}" in got.message

    async def test_connection_that_is_not_accepted_ends_with_its_own_limit(self) -> None:
        with socket.socket() as full:
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            fillers = [socket.socket() for _ in range(2)]
            for filler in fillers:
                filler.setblocking(False)
                filler.connect_ex(full.getsockname())
            async with lane(full.getsockname()[1], connect_timeout_s=SHORT_S) as connection:
                got = await connection.send("/x", BODY, LONG_S)
            for filler in fillers:
                filler.close()
        assert isinstance(got, Failure)
        assert_again(got, FailureCode.CONNECTION, Billed.NO)
        assert "connect_timeout_s" in got.message

    async def test_lack_of_file_descriptors_is_named(self) -> None:
        async with serving(saying(answer())) as port, lane(port) as connection:
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            with socket.socket() as probe:
                lowest = probe.fileno()
            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
            try:
                got = await connection.send("/x", BODY, LONG_S)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            assert isinstance(got, Failure)
            assert_again(got, FailureCode.CONNECTION, Billed.NO)
            assert "ulimit" in got.message
            assert isinstance(await connection.send("/x", BODY, LONG_S), Response)

    @pytest.mark.parametrize("deadline_s", [0.0, -1.0, float("nan")])
    async def test_nothing_is_sent_after_the_deadline(self, deadline_s: float) -> None:
        ledger = Ledger()
        assert_again(
            await failure(saying(answer(), ledger), deadline_s=deadline_s), FailureCode.TIMEOUT, Billed.NO
        )
        assert ledger.connections == 0


class TestDeadline:
    async def test_silent_server_meets_the_deadline(self) -> None:
        assert_again(await failure(saying(b""), deadline_s=SHORT_S), FailureCode.TIMEOUT, Billed.UNKNOWN)

    async def test_trickled_body_meets_the_deadline(self) -> None:
        async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await Ledger().request(reader)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n")
            while True:
                writer.write(b"x")
                await asyncio.sleep(SHORT_S / 5)

        assert_again(await failure(behave, deadline_s=SHORT_S), FailureCode.TIMEOUT, Billed.UNKNOWN)

    async def test_trickled_header_meets_the_deadline(self) -> None:
        async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await Ledger().request(reader)
            writer.write(b"HTTP/1.1 200 OK\r\nx-slow: ")
            while True:
                writer.write(b"x")
                await asyncio.sleep(SHORT_S / 5)

        assert_again(await failure(behave, deadline_s=SHORT_S), FailureCode.TIMEOUT, Billed.UNKNOWN)

    async def test_server_that_never_reads_meets_the_deadline(self) -> None:
        async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await asyncio.Event().wait()

        got = await failure(behave, deadline_s=SHORT_S, body=b"x" * 20_000_000)
        assert_again(got, FailureCode.TIMEOUT, Billed.UNKNOWN)

    async def test_wait_for_a_place_in_the_pool_is_under_the_deadline(self) -> None:
        async with serving(saying(b"")) as port, lane(port, max_connections=1) as connection:
            got = await asyncio.gather(*(connection.send("/x", BODY, SHORT_S) for _ in range(3)))
        assert [one.code for one in got if isinstance(one, Failure)] == [FailureCode.TIMEOUT] * 3


class TestBrokenReply:
    async def test_reset_after_the_request_may_be_billed(self) -> None:
        async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await Ledger().request(reader)
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()

        assert_again(await failure(behave), FailureCode.CONNECTION, Billed.UNKNOWN)

    async def test_close_without_an_answer_may_be_billed(self) -> None:
        assert_again(await failure(saying(b"", then_close=True)), FailureCode.CONNECTION, Billed.UNKNOWN)

    @pytest.mark.parametrize(
        "raw",
        [
            b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n" + ANSWER,
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n20\r\n" + ANSWER,
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n%x\r\n%s\r\n" % (len(ANSWER), ANSWER),
            b"HTTP/1.1 200 OK\r\ncontent-length: 5000\r\ncontent-encoding: gzip\r\n\r\n"
            + gzip.compress(ANSWER),
        ],
        ids=["length", "inside a chunk", "between chunks", "compressed"],
    )
    async def test_half_a_body_is_no_answer(self, raw: bytes) -> None:
        got = await failure(saying(raw, then_close=True))
        assert_again(got, FailureCode.CONNECTION, Billed.UNKNOWN)
        assert got.status == 200

    async def test_cut_compressed_stream_is_no_answer(self) -> None:
        whole = zlib.compress(ANSWER * 100)
        raw = answer(whole[:-8], headers="content-encoding: deflate\r\n")
        got = await failure(saying(raw))
        assert (got.action, got.billed) == (Action.AGAIN, Billed.UNKNOWN)

    async def test_damaged_chunk_size_is_no_answer(self) -> None:
        raw = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n" + ANSWER
        got = await failure(saying(raw))
        assert (got.action, got.billed) == (Action.AGAIN, Billed.UNKNOWN)
        assert got.code in (FailureCode.CONNECTION, FailureCode.MALFORMED)

    async def test_damaged_compression_is_no_answer(self) -> None:
        got = await failure(saying(answer(b"no gzip at all", headers="content-encoding: gzip\r\n")))
        assert (got.action, got.billed) == (Action.AGAIN, Billed.UNKNOWN)

    @pytest.mark.parametrize(
        "raw",
        [
            b"SSH-2.0-OpenSSH_9.9\r\n\r\n",
            b"HTTP/1.1 2x0 OK\r\n\r\n",
            b"<html>hello</html>\r\n\r\n",
            b"\x00\xff\xfe\x01" * 20 + b"\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nno colon here\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd",
            b"HTTP/1.1 200 OK\r\n" + b"".join(b"x-%d: y\r\n" % n for n in range(2_000)) + b"\r\n",
            b"HTTP/1.1 200 OK\r\nx-big: " + b"y" * 200_000 + b"\r\n\r\n",
        ],
        ids=["ssh", "status", "http/0.9", "binary", "header", "lengths", "header flood", "big header"],
    )
    async def test_what_is_no_http_is_malformed(self, raw: bytes) -> None:
        assert_again(await failure(saying(raw, then_close=True)), FailureCode.MALFORMED, Billed.UNKNOWN)

    async def test_close_after_the_answer_costs_the_next_call_at_most(self) -> None:
        async with serving(saying(answer(), then_close=True)) as port, lane(port) as connection:
            got = [await connection.send("/x", BODY, LONG_S) for _ in range(6)]
        assert isinstance(got[0], Response)
        for one, following in pairwise(got):
            if isinstance(one, Failure):
                assert (one.action, one.code) == (Action.AGAIN, FailureCode.CONNECTION)
                assert isinstance(following, Response)

    async def test_close_that_crosses_the_next_request_is_a_failure(self) -> None:
        async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            ledger = Ledger()
            await ledger.request(reader)
            writer.write(answer())
            await ledger.request(reader)

        async with serving(behave) as port, lane(port) as connection:
            assert isinstance(await connection.send("/x", BODY, LONG_S), Response)
            got = await connection.send("/x", BODY, LONG_S)
            assert isinstance(got, Failure)
            assert_again(got, FailureCode.CONNECTION, Billed.UNKNOWN)
            assert isinstance(await connection.send("/x", BODY, LONG_S), Response)


class TestSize:
    @pytest.mark.parametrize(("size", "is_read"), [(1_000, True), (1_001, False), (900_000, False)])
    async def test_body_is_read_up_to_the_cap(self, size: int, is_read: bool) -> None:
        got = await outcome(saying(answer(b"x" * size)), max_reply_bytes=1_000)
        assert isinstance(got, Response) is is_read
        if isinstance(got, Failure):
            assert_again(got, FailureCode.MALFORMED, Billed.UNKNOWN)
            assert got.status == 200

    async def test_cap_holds_without_a_length(self) -> None:
        async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await Ledger().request(reader)
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            while True:
                writer.write(b"x" * 65_536)
                await writer.drain()

        assert_again(await failure(behave, max_reply_bytes=1_000_000), FailureCode.MALFORMED, Billed.UNKNOWN)

    async def test_gzip_bomb_does_not_fill_the_memory(self) -> None:
        packer = zlib.compressobj(9, wbits=31)
        bomb = b"".join(packer.compress(b"\0" * 1_000_000) for _ in range(200)) + packer.flush()
        assert len(bomb) < 300_000
        behave = saying(answer(bomb, headers="content-encoding: gzip\r\n"))
        tracemalloc.start()
        try:
            got = await failure(behave, max_reply_bytes=4_000_000)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert_again(got, FailureCode.MALFORMED, Billed.UNKNOWN)
        assert peak < 30_000_000

    async def test_large_reply_is_whole(self) -> None:
        body = bytes(range(256)) * 40_000
        assert (await response(saying(answer(body)))).body == body


class TestCancel:
    async def test_cancelled_call_gives_its_place_back(self) -> None:
        async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            ledger = Ledger()
            while await ledger.request(reader):
                if ledger.bodies[-1] == BODY:
                    writer.write(answer())

        async with serving(behave) as port, lane(port, max_connections=1) as connection:
            call = asyncio.create_task(connection.send("/x", b"hang", LONG_S))
            waiting = asyncio.create_task(connection.send("/x", BODY, LONG_S))
            await asyncio.sleep(0.05)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            assert isinstance(await waiting, Response)

    async def test_pool_is_whole_after_storms_of_cancellation(self) -> None:
        async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            ledger = Ledger()
            while await ledger.request(reader):
                await asyncio.sleep(0.002)
                half = len(answer()) - 4
                writer.write(answer()[:half])
                await asyncio.sleep(0.001)
                writer.write(answer()[half:])

        async with serving(behave) as port, lane(port, max_connections=4) as connection:
            for storm in range(8):
                calls = [asyncio.create_task(connection.send("/x", BODY, LONG_S)) for _ in range(40)]
                await asyncio.sleep(0.0007 * storm)
                for call in calls:
                    call.cancel()
                await asyncio.gather(*calls, return_exceptions=True)
            deadlines = [connection.send("/x", BODY, 0.0005 * n) for n in range(40)]
            await asyncio.gather(*deadlines)
            healthy = await asyncio.gather(*(connection.send("/x", BODY, LONG_S) for _ in range(20)))
        assert all(isinstance(one, Response) for one in healthy), healthy


class TestProxy:
    async def test_loopback_never_goes_through_a_proxy(self) -> None:
        environ = {"HTTP_PROXY": "http://127.0.0.1:9", "ALL_PROXY": "socks5://127.0.0.1:9"}
        assert (await response(saying(answer()), environ=environ)).status == 200

    async def test_other_hosts_go_through_the_proxy_of_the_environment(self) -> None:
        ledger = Ledger()
        async with serving(saying(answer(), ledger)) as port:
            environ = {"http_proxy": f"http://me:hush-hush@127.0.0.1:{port}"}
            async with lane(0, url="http://provider.test/v1", environ=environ) as connection:
                got = await connection.send("/x", BODY, LONG_S)
        assert isinstance(got, Response)
        assert ledger.heads[0].startswith("POST http://provider.test/v1/x HTTP/1.1\r\n")
        assert "proxy-authorization: basic bWU6aHVzaC1odXNo".lower() in ledger.heads[0].lower()

    async def test_refusal_of_the_proxy_is_no_call(self) -> None:
        async with serving(saying(answer(b"", status="502 Bad Gateway"))) as port:
            environ = {"https_proxy": f"http://me:hush-hush@127.0.0.1:{port}"}
            async with lane(0, url="https://provider.test/v1", environ=environ) as connection:
                got = await connection.send("/x", BODY, LONG_S)
        assert isinstance(got, Failure)
        assert_again(got, FailureCode.CONNECTION, Billed.NO)
        assert "HTTP 502" in got.message
        assert "hush" not in got.message

    async def test_proxy_that_is_down_is_named_as_the_proxy(self) -> None:
        async with serving(saying(b"")) as port:
            pass
        environ = {"https_proxy": f"http://127.0.0.1:{port}"}
        async with lane(0, url="https://provider.test/v1", environ=environ) as connection:
            got = await connection.send("/x", BODY, LONG_S)
        assert isinstance(got, Failure)
        assert_again(got, FailureCode.CONNECTION, Billed.NO)
        assert "proxy" in got.message


class TestConstruction:
    def test_key_is_not_in_the_representation(self) -> None:
        connection = HttpConnection(
            base_url="http://127.0.0.1/v1",
            headers={"Authorization": f"Bearer {KEY}"},
            connect_timeout_s=1.0,
            secrets=(KEY,),
            environ={"HTTPS_PROXY": KEY},
        )
        assert KEY not in repr(connection)

    @pytest.mark.parametrize(
        "headers", [{"a": "key\n"}, {"a": "x\r\ny: z"}, {"a b": "x"}, {"": "x"}, {"a": "\x00"}, {"é": "x"}]
    )
    def test_headers_that_cannot_be_sent_are_refused_without_their_value(
        self, headers: Mapping[str, str]
    ) -> None:
        with pytest.raises(CredentialsError) as caught:
            HttpConnection(base_url="http://h", headers=headers, connect_timeout_s=1.0, environ={})
        assert "key\n" not in str(caught.value)

    @pytest.mark.parametrize("url", ["", "h/v1", "ftp://h", "http://", "http://me:pw@h", "http://[::1"])
    def test_base_url_must_be_an_address_without_a_password(self, url: str) -> None:
        with pytest.raises(NoProviderError) as caught:
            HttpConnection(base_url=url, headers={}, connect_timeout_s=1.0, environ={})
        assert "pw" not in str(caught.value)

    async def test_no_call_is_made_after_close(self) -> None:
        async with lane(1) as connection:
            await connection.close()
            with pytest.raises(InvariantError):
                await connection.send("/x", BODY, LONG_S)

    async def test_close_ends_the_calls_in_flight(self) -> None:
        arrived = asyncio.Event()

        async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await Ledger().request(reader)
            arrived.set()
            await asyncio.Event().wait()

        async with serving(behave) as port, lane(port) as connection:
            call = asyncio.create_task(connection.send("/x", BODY, LONG_S))
            await arrived.wait()
            await connection.close()
            got = await call
        assert isinstance(got, Failure)
        assert got.billed is Billed.UNKNOWN

    async def test_a_call_that_waits_for_a_place_is_not_sent_after_close(self) -> None:
        """The place comes back, and the connection is closed before the call that waited has gone on."""
        ledger = Ledger()
        async with (
            serving(saying(answer(), ledger=ledger)) as port,
            lane(port, max_connections=1) as connection,
        ):

            async def first() -> None:
                await connection.send("/x", BODY, LONG_S)
                await connection.close()

            one = asyncio.create_task(first())
            two = asyncio.create_task(connection.send("/x", BODY, LONG_S))
            await one
            got = await two
        assert isinstance(got, Failure)
        assert got.billed is Billed.NO
        assert len(ledger.heads) == 1


class TestTls:
    @pytest.fixture
    def server_context(self, tmp_path: Path) -> ssl.SSLContext:
        return server_context(tmp_path)

    async def test_trusted_certificate_is_accepted(self, server_context: ssl.SSLContext) -> None:
        trusting = ssl.create_default_context(cadata=CERTIFICATE)
        async with (
            serving(saying(answer()), ssl=server_context) as port,
            lane(port, url="https://localhost:{port}", ssl_context=trusting) as connection,
        ):
            assert isinstance(await connection.send("/x", BODY, LONG_S), Response)

    @pytest.mark.parametrize("host", ["localhost", "127.0.0.1"], ids=["self-signed", "wrong host"])
    async def test_certificate_that_is_not_trusted_ends_the_lane(
        self, server_context: ssl.SSLContext, host: str
    ) -> None:
        trusting = ssl.create_default_context(cadata=CERTIFICATE) if host == "127.0.0.1" else None
        async with (
            serving(saying(answer()), ssl=server_context) as port,
            lane(port, url=f"https://{host}:{{port}}", ssl_context=trusting) as connection,
        ):
            got = await connection.send("/x", BODY, LONG_S)
        assert isinstance(got, Failure)
        assert (got.action, got.code, got.billed) == (Action.ELSEWHERE, FailureCode.CONNECTION, Billed.NO)
        assert got.lane_is_dead
        assert "SSL_CERT_FILE" in got.message

    async def test_server_without_tls_is_a_failed_handshake(self) -> None:
        async with (
            serving(saying(b"HTTP/1.1 400 Bad Request\r\n\r\n", then_close=True)) as port,
            lane(port, url="https://127.0.0.1:{port}") as connection,
        ):
            got = await connection.send("/x", BODY, SHORT_S * 4)
        assert isinstance(got, Failure)
        assert got.action is Action.AGAIN
        assert got.code in (FailureCode.CONNECTION, FailureCode.TIMEOUT)
