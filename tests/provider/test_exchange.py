"""One connection over a transport that records: what is written when, and what each end of it means."""

import asyncio
import gc

import pytest

from batchllm.provider.exchange import PIECE_BYTES, HalfSentError, LostError, Wire
from batchllm.provider.reply import BrokenReplyError, NoHttpError, NoReplyError

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


class Transport(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.unsent_bytes = 0
        self.is_aborted = False

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))

    def get_write_buffer_size(self) -> int:
        return self.unsent_bytes

    def is_closing(self) -> bool:
        return self.is_aborted

    def abort(self) -> None:
        self.is_aborted = True


class Rig:
    def __init__(self) -> None:
        self.transport = Transport()
        self.ended: list[Wire] = []
        self.wire = Wire(self.transport, asyncio.get_running_loop(), 1_000_000, self.ended.append)


async def _turn() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


class TestAsk:
    async def test_request_is_one_write(self) -> None:
        rig = Rig()
        rig.wire.ask(b"request")
        assert rig.transport.written == [b"request"]
        assert rig.transport.protocol is rig.wire

    async def test_connection_may_be_used_again(self) -> None:
        rig = Rig()
        for _ in range(3):
            answer = rig.wire.ask(b"request")
            assert not rig.wire.is_fit
            rig.wire.data_received(ANSWER[:7])
            rig.wire.data_received(ANSWER[7:])
            assert (await answer).body == b"ok"
            assert rig.wire.release()

    async def test_unasked_bytes_end_the_connection(self) -> None:
        rig = Rig()
        rig.wire.data_received(ANSWER)
        assert rig.transport.is_aborted
        assert not rig.wire.is_fit

    async def test_bytes_before_the_caller_looks_leave_the_answer_alone(self) -> None:
        rig = Rig()
        answer = rig.wire.ask(b"request")
        rig.wire.data_received(ANSWER)
        rig.wire.data_received(ANSWER.replace(b"ok", b"no"))
        assert (await answer).body == b"ok"
        assert not rig.wire.release()

    async def test_answer_before_all_was_sent_counts_and_is_the_last(self) -> None:
        rig = Rig()
        answer = rig.wire.ask(b"request")
        rig.transport.unsent_bytes = 1
        rig.wire.data_received(ANSWER)
        assert (await answer).status == 200
        assert not rig.wire.release()

    async def test_call_that_is_given_up_takes_its_connection_along(self) -> None:
        rig = Rig()
        rig.wire.ask(b"request").cancel()
        assert not rig.wire.release()

    async def test_what_is_no_http_ends_call_and_connection(self) -> None:
        rig = Rig()
        answer = rig.wire.ask(b"request")
        rig.wire.data_received(b"SSH-2.0\r\n")
        with pytest.raises(NoHttpError):
            await answer
        assert rig.transport.is_aborted

    async def test_failure_from_here_ends_call_and_connection(self) -> None:
        rig = Rig()
        answer = rig.wire.ask(b"request")
        rig.wire.fail(TimeoutError("x"))
        rig.wire.fail(TimeoutError("y"))
        with pytest.raises(TimeoutError, match="x"):
            await answer
        assert rig.transport.is_aborted

    async def test_failure_that_its_caller_did_not_wait_for_is_not_told_later(self) -> None:
        """A future that is dropped with its exception unseen is reported by the loop, long after, to nobody."""
        rig = Rig()
        told: list[dict[str, object]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
        rig.wire.ask(b"request")
        rig.wire.fail(TimeoutError())
        rig.wire.release()
        gc.collect()
        assert told == []


class TestEnd:
    async def test_end_of_an_idle_connection_is_heard_once_and_makes_it_unfit(self) -> None:
        rig = Rig()
        rig.wire.eof_received()
        assert not rig.wire.is_fit
        rig.wire.connection_lost(None)
        assert rig.ended == [rig.wire]

    @pytest.mark.parametrize("is_eof", [True, False])
    async def test_end_without_an_answer(self, is_eof: bool) -> None:
        rig = Rig()
        answer = rig.wire.ask(b"request")
        rig.wire.eof_received() if is_eof else rig.wire.connection_lost(None)
        with pytest.raises(NoReplyError):
            await answer

    async def test_end_within_an_answer_and_its_status(self) -> None:
        rig = Rig()
        answer = rig.wire.ask(b"request")
        rig.wire.data_received(ANSWER[:-1])
        rig.wire.eof_received()
        with pytest.raises(BrokenReplyError):
            await answer
        assert rig.wire.status == 200

    async def test_end_that_ends_the_answer(self) -> None:
        rig = Rig()
        answer = rig.wire.ask(b"request")
        rig.wire.data_received(b"HTTP/1.1 200 OK\r\n\r\nok")
        rig.wire.eof_received()
        assert (await answer).body == b"ok"
        assert not rig.wire.release()

    async def test_reset_is_no_end_of_an_answer(self) -> None:
        rig = Rig()
        answer = rig.wire.ask(b"request")
        rig.wire.data_received(b"HTTP/1.1 200 OK\r\n\r\nok")
        rig.wire.connection_lost(ConnectionResetError("reset"))
        with pytest.raises(ConnectionResetError):
            await answer

    async def test_end_before_all_was_sent_is_half_a_request(self) -> None:
        rig = Rig()
        answer = rig.wire.ask(b"request")
        rig.transport.unsent_bytes = 1
        rig.wire.eof_received()
        with pytest.raises(HalfSentError):
            await answer

    async def test_fault_that_is_none_of_the_network_is_told_as_one(self) -> None:
        rig = Rig()
        answer = rig.wire.ask(b"request")
        rig.wire.connection_lost(MemoryError("full"))  # type: ignore[arg-type]
        with pytest.raises(LostError, match="full"):
            await answer


class TestUpload:
    BODY = b"x" * (3 * PIECE_BYTES + 5)

    async def test_large_body_is_handed_over_in_pieces_and_others_have_their_turn(self) -> None:
        rig = Rig()
        turns_before: list[int] = []
        call = asyncio.create_task(rig.wire.upload(b"head", self.BODY))
        while len(rig.transport.written) < 5:
            turns_before.append(len(rig.transport.written))
            await asyncio.sleep(0)
        assert rig.transport.written == [b"head", *(b"x" * PIECE_BYTES,) * 3, b"xxxxx"]
        assert sorted(set(turns_before)) == [0, 1, 2, 3, 4]  # somebody else ran between any two
        rig.wire.data_received(ANSWER)
        assert (await call).body == b"ok"
        assert rig.wire.release()

    async def test_nothing_is_written_while_the_transport_is_full(self) -> None:
        rig = Rig()
        call = asyncio.create_task(rig.wire.upload(b"head", self.BODY))
        rig.wire.pause_writing()
        await _turn()
        assert rig.transport.written == [b"head"]
        rig.wire.resume_writing()
        rig.wire.pause_writing()
        await _turn()
        assert len(rig.transport.written) == 2
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        assert not rig.wire.release()

    async def test_early_answer_ends_the_upload_and_the_connection(self) -> None:
        rig = Rig()
        rig.wire.pause_writing()
        call = asyncio.create_task(rig.wire.upload(b"head", self.BODY))
        await _turn()
        rig.wire.data_received(ANSWER.replace(b"200 OK", b"413 Too Large"))
        assert (await call).status == 413
        assert rig.transport.written == [b"head"]
        assert not rig.wire.release()

    @pytest.mark.parametrize("error", [None, BrokenPipeError()])
    async def test_end_under_the_upload_is_half_a_request(self, error: Exception | None) -> None:
        rig = Rig()
        rig.wire.pause_writing()
        call = asyncio.create_task(rig.wire.upload(b"head", self.BODY))
        await _turn()
        rig.wire.connection_lost(error)
        with pytest.raises(HalfSentError):
            await call

    async def test_deadline_under_the_upload_wakes_it(self) -> None:
        rig = Rig()
        rig.wire.pause_writing()
        call = asyncio.create_task(rig.wire.upload(b"head", self.BODY))
        await _turn()
        rig.wire.fail(TimeoutError())
        with pytest.raises(TimeoutError):
            await call
