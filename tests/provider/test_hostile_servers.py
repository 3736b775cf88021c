"""Servers that a connection which is used again must survive: each does one thing wrong, or something rare."""

import asyncio
import gzip
import socket
import struct
import zlib

import pytest
from wire_rig import (
    ANSWER,
    BODY,
    LONG_S,
    SHORT_S,
    Behaviour,
    Ledger,
    answer,
    assert_again,
    failure,
    lane,
    response,
    saying,
    serving,
    until,
)

from batchllm.errors import InvariantError
from batchllm.provider.connection import HttpConnection
from batchllm.records import Billed, Failure, FailureCode, Response

EVIL = answer(b'{"evil":true}')
BIG = b"x" * 20_000_000


async def two_calls(behave: Behaviour) -> tuple[Response, Response]:
    async with serving(behave) as port, lane(port) as connection:
        first = await connection.send("/x", BODY, LONG_S)
        second = await connection.send("/x", BODY, LONG_S)
    assert isinstance(first, Response), first
    assert isinstance(second, Response), second
    return first, second


class TestReuse:
    @pytest.mark.parametrize(
        ("raw", "connections"),
        [
            (answer(), 1),
            (answer(headers="connection: close\r\n"), 2),
            (answer().replace(b"HTTP/1.1", b"HTTP/1.0"), 2),
            (answer(headers="connection: keep-alive\r\n").replace(b"HTTP/1.1", b"HTTP/1.0"), 1),
            (b"HTTP/1.1 204 No Content\r\n\r\n", 1),
            (b"HTTP/1.1 304 Not Modified\r\ncontent-length: 10\r\n\r\n", 1),
            (b"HTTP/1.1 103 Early Hints\r\n\r\n" + answer(), 1),
            (answer(status="500 Oops"), 1),
            (answer() + EVIL, 2),
            (answer() + b"x", 2),
            (answer() + b"\r\n", 1),
            (answer(headers="connection: close\r\n") + EVIL, 2),
        ],
    )
    async def test_connection_is_used_again_where_that_is_safe(self, raw: bytes, connections: int) -> None:
        ledger = Ledger()
        got = await two_calls(saying(raw, ledger))
        assert ledger.connections == connections
        assert all(b"evil" not in one.body for one in got)

    async def test_answer_to_nothing_is_not_the_answer_to_the_next_call(self) -> None:
        ledger, is_idle, is_over = Ledger(), asyncio.Event(), asyncio.Event()

        async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            ledger.connections += 1
            await ledger.request(reader)
            writer.write(answer())
            if ledger.connections == 1:
                await is_idle.wait()
                writer.write(EVIL)
                await reader.read()
                is_over.set()

        async with serving(behave) as port, lane(port) as connection:
            assert isinstance(await connection.send("/x", BODY, LONG_S), Response)
            is_idle.set()
            await is_over.wait()
            got = await connection.send("/x", BODY, LONG_S)
        assert isinstance(got, Response)
        assert (got.body, ledger.connections) == (ANSWER, 2)

    @pytest.mark.parametrize("is_reset", [False, True])
    async def test_connection_that_is_closed_while_idle_costs_no_call(self, is_reset: bool) -> None:
        """The end arrives before the next call, so that the call has nothing to do with it."""
        ledger, is_idle = Ledger(), asyncio.Event()

        async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            ledger.connections += 1
            await ledger.request(reader)
            writer.write(answer())
            await is_idle.wait()
            is_idle.clear()
            if is_reset:
                linger = struct.pack("ii", 1, 0)
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

        async with serving(behave) as port, lane(port) as connection:
            for _ in range(5):
                assert isinstance(await connection.send("/x", BODY, LONG_S), Response)
                is_idle.set()
                await until(lambda: connection.idle_connections == 0)
        assert ledger.connections == 5

    async def test_idle_connections_can_be_dropped(self) -> None:
        ledger = Ledger()
        async with serving(saying(answer(), ledger)) as port, lane(port) as connection:
            connection.drop_idle()  # before the first call there are none
            await asyncio.gather(*(connection.send("/x", BODY, LONG_S) for _ in range(3)))
            assert connection.idle_connections == 3
            connection.drop_idle()
            assert connection.idle_connections == 0
            assert isinstance(await connection.send("/x", BODY, LONG_S), Response)
        assert ledger.connections == 4


class TestEarlyReply:
    @pytest.mark.parametrize("status", ["413 Payload Too Large", "429 Too Many Requests", "200 OK"])
    async def test_reply_before_the_upload_ends_counts_and_is_the_last(self, status: str) -> None:
        ledger, is_read = Ledger(), asyncio.Event()

        async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            ledger.connections += 1
            if ledger.connections == 1:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(answer(b"early", status=status))
                await is_read.wait()
            else:
                await ledger.request(reader)
                writer.write(answer())

        async with serving(behave) as port, lane(port) as connection:
            first = await connection.send("/x", BIG, LONG_S)
            second = await connection.send("/x", BODY, LONG_S)
            is_read.set()
        assert isinstance(first, Response)
        assert isinstance(second, Response)
        assert (first.body, second.body, ledger.connections) == (b"early", ANSWER, 2)

    async def test_reply_that_ends_with_its_half_of_the_connection_counts(self) -> None:
        async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 413 Too Large\r\n\r\nearly")
            writer.write_eof()
            await asyncio.Event().wait()

        got = await response(behave, body=BIG)
        assert (got.status, got.body) == (413, b"early")

    @pytest.mark.parametrize("is_reset", [False, True])
    async def test_end_under_the_upload_is_no_request(self, is_reset: bool) -> None:
        async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            if is_reset:
                return
            writer.write_eof()
            await asyncio.Event().wait()

        got = await failure(behave, body=BIG)
        assert_again(got, FailureCode.CONNECTION, Billed.NO)
        assert "before the request was sent" in got.message

    async def test_large_upload_is_whole(self) -> None:
        ledger = Ledger()
        body = bytes(range(256)) * 20_000
        assert (await response(saying(answer(), ledger), body=body)).status == 200
        assert ledger.bodies == [body]


class TestBody:
    async def test_headers_that_come_twice_are_joined(self) -> None:
        got = await response(saying(answer(headers="x-limit: 1\r\nX-Limit: caf\u00e9\r\n")))
        assert got.headers["x-limit"] == "1, caf\u00c3\u00a9"  # bytes as they are: latin-1

    async def test_reset_within_a_body_without_length_is_no_answer(self) -> None:
        async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await Ledger().request(reader)
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + ANSWER)
            await writer.drain()
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

        assert_again(await failure(behave), FailureCode.CONNECTION, Billed.UNKNOWN)

    @pytest.mark.parametrize(
        ("body", "coding"),
        [
            (gzip.compress(ANSWER[:4], mtime=0) + gzip.compress(ANSWER[4:], mtime=0), "gzip"),
            (zlib.compress(ANSWER), "deflate"),
            (zlib.compress(ANSWER)[2:-4], "deflate"),
            (ANSWER, "identity"),
        ],
        ids=["two members", "zlib", "raw", "plain"],
    )
    async def test_what_was_asked_for_is_unpacked(self, body: bytes, coding: str) -> None:
        ledger = Ledger()
        raw = answer(body, headers=f"content-encoding: {coding}\r\n")
        assert (await response(saying(raw, ledger))).body == ANSWER
        assert "accept-encoding: gzip, deflate\r\n" in ledger.heads[0].lower()

    async def test_coding_that_was_not_asked_for_is_told(self) -> None:
        got = await failure(saying(answer(b"\x8b", headers="content-encoding: br\r\n")))
        assert_again(got, FailureCode.CONNECTION, Billed.UNKNOWN)
        assert "'br'" in got.message
        assert got.status == 200

    async def test_switch_to_another_protocol_is_no_answer(self) -> None:
        raw = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n"
        assert_again(await failure(saying(raw)), FailureCode.MALFORMED, Billed.UNKNOWN)

    @pytest.mark.parametrize(
        "again",
        [b"HTTP/1.1 103 Early Hints\r\n\r\n", b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 900],
        ids=["interim", "headers"],
    )
    async def test_flood_without_a_body_is_cut_off(self, again: bytes) -> None:
        async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await Ledger().request(reader)
            while True:
                writer.write(again)
                await writer.drain()

        assert_again(await failure(behave), FailureCode.MALFORMED, Billed.UNKNOWN)

    async def test_next_call_after_a_broken_one_has_nothing_of_it(self) -> None:
        """The status of a reply before must not stand in the failure of the next."""

        async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            ledger = Ledger()
            await ledger.request(reader)
            writer.write(answer(status="500 Oops"))
            await ledger.request(reader)

        async with serving(behave) as port, lane(port) as connection:
            assert isinstance(await connection.send("/x", BODY, LONG_S), Response)
            got = await connection.send("/x", BODY, LONG_S)
        assert isinstance(got, Failure)
        assert got.status is None


class LeapingLoop(asyncio.SelectorEventLoop):
    """Its time leaps when told, as after a stop of the process."""

    ahead_s = 0.0

    def time(self) -> float:
        return super().time() + self.ahead_s


class TestStandstill:
    @pytest.mark.parametrize("is_answered", [True, False])
    def test_reply_that_lay_unread_while_the_process_stood_still_is_an_answer(
        self, is_answered: bool
    ) -> None:
        arrived, may_answer = asyncio.Event(), asyncio.Event()

        async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await Ledger().request(reader)
            arrived.set()
            await may_answer.wait()
            writer.write(answer())
            await asyncio.Event().wait()

        async def calls(loop: LeapingLoop) -> Response | Failure:
            async with serving(behave) as port, lane(port) as connection:
                call = asyncio.create_task(connection.send("/x", BODY, 10.0))
                await arrived.wait()
                loop.ahead_s += 60.0
                await asyncio.sleep(0.01)  # its timer is 50 s late
                assert not call.done()
                if is_answered:
                    may_answer.set()
                else:
                    loop.ahead_s += 60.0
                return await call

        loop = LeapingLoop()
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            got = runner.run(calls(loop))
        if is_answered:
            assert isinstance(got, Response)
        else:
            assert isinstance(got, Failure)
            assert_again(got, FailureCode.TIMEOUT, Billed.UNKNOWN)


class TestClose:
    async def test_close_ends_calls_that_are_still_connecting(self) -> None:
        with socket.socket() as full:
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            fillers = [socket.socket() for _ in range(2)]
            for filler in fillers:
                filler.setblocking(False)
                filler.connect_ex(full.getsockname())
            connection = HttpConnection(
                base_url=f"http://127.0.0.1:{full.getsockname()[1]}",
                headers={},
                connect_timeout_s=LONG_S,
                environ={},
            )
            call = asyncio.create_task(connection.send("/x", BODY, LONG_S))
            await asyncio.sleep(0.02)
            await connection.close()
            got = await call
            for filler in fillers:
                filler.close()
        assert isinstance(got, Failure)
        assert_again(got, FailureCode.CONNECTION, Billed.NO)

    async def test_close_ends_calls_that_wait_for_a_place(self) -> None:
        arrived = asyncio.Event()

        async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await Ledger().request(reader)
            arrived.set()
            await asyncio.Event().wait()

        async with serving(behave) as port, lane(port, max_connections=1) as connection:
            calls = [asyncio.create_task(connection.send("/x", BODY, LONG_S)) for _ in range(3)]
            await arrived.wait()
            await connection.close()
            got = await asyncio.gather(*calls)
        assert [one.billed for one in got if isinstance(one, Failure)] == [
            Billed.UNKNOWN,
            Billed.NO,
            Billed.NO,
        ]

    async def test_close_twice_and_before_the_first_call_is_nothing(self) -> None:
        async with lane(1) as connection:
            await connection.close()
            await connection.close()
            with pytest.raises(InvariantError):
                await connection.send("/x", BODY, LONG_S)

    async def test_wait_for_a_place_counts_as_connecting(self) -> None:
        async with (
            serving(saying(b"")) as port,
            lane(port, max_connections=1, connect_timeout_s=SHORT_S) as connection,
        ):
            hanging = asyncio.create_task(connection.send("/x", BODY, LONG_S))
            await asyncio.sleep(0)
            got = await connection.send("/x", BODY, LONG_S)
            hanging.cancel()
            await asyncio.gather(hanging, return_exceptions=True)
        assert isinstance(got, Failure)
        assert_again(got, FailureCode.CONNECTION, Billed.NO)
        assert "connect_timeout_s" in got.message
